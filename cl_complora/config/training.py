"""Schema of a strategy's optimiser, schedule and training: how the weights of an experience are moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .base import MOST, Count, Fraction, Section, refused
from .losses import CrossEntropy, Loss

Whole = Literal["weights", "biases", "norms", "positions", "tokens"]
Tower = Literal["vision", "text"]


# Settings that only some optimisers read, and those that are usual with one of them.
_READ_BY = {
    "momentum": ("sgd", "muon"),
    "betas": ("adam", "adamw", "muon", "prodigy", "schedule-free"),
    "adjust": ("muon",),
    "relative": ("adam", "adamw", "sgd", "muon"),
}
_OWN_DEFAULTS: dict[str, dict[str, float]] = {"muon": {"momentum": 0.95}, "prodigy": {"lr": 1.0}}


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1])] * (len(names) > 1) + [names[-1]])


class Optimiser(Section):
    """How the trainable weights are updated."""

    name: Literal["adamw", "adam", "sgd", "muon", "prodigy", "schedule-free"] = "adamw"
    """``muon``: orthogonalised steps for low-rank factors and the matrices of a tower's blocks, AdamW for the
    rest. ``prodigy``: AdamW that finds its step size. ``schedule-free``: AdamW that averages its weights in
    place of a decaying rate."""
    lr: Annotated[float, Field(gt=0)]
    """Rate of everything that ``rates`` does not name."""
    rates: dict[Tower | Whole, Annotated[float, Field(gt=0)]] = {}
    """Rates of a tower (``vision``, ``text``: factors and whatever else of it is trained) and of kinds of
    parameters that ``adapter.whole`` trains as they are (``tokens: 3e-3``). A kind's rate wins over its
    tower's, and both over ``lr``."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Share of the weights that decays with the rate at every step (of sgd and adam: coupled L2)."""
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [
        0.9,
        0.999,
    ]
    """Decay of the two moments."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of sgd, and of muon (0.95 by default)."""
    adjust: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """Scale of muon's steps by a matrix's shape: as large as AdamW's (whose rates then fit), or the
    author's."""
    relative: bool = False
    """Every step moves a matrix by ``lr`` times its own length (for factors: that of the matrix they update),
    so that a rate carries over between models of different size. What several matrices share, and lengths of
    rows, keep the optimiser's own step."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 5.0
    """Longest gradient, over all trained parameters; null for any."""

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, data: Any) -> Any:
        name = data.get("name") if isinstance(data, dict) else None
        return {**_OWN_DEFAULTS.get(name, {}), **data} if isinstance(name, str) else data

    @model_validator(mode="after")
    def _no_idle_settings(self) -> Optimiser:
        for key, names in _READ_BY.items():
            if key in self.model_fields_set and self.name not in names:
                message = f"has no effect with name: {self.name}, only with name: {_either(names)}"
                raise refused(message, key, because=[("name",)])
        if self.name == "schedule-free" and self.betas[0] == 0:
            message = "the first of the two must be greater than 0 with name: schedule-free"
            raise refused(message, "betas", because=[("name",)])
        return self


class Schedule(Section):
    """Learning rate over the steps of one task."""

    name: Literal["cosine", "constant"] = "cosine"
    """How the rate falls after the warm-up."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps over which the rate rises linearly from zero."""
    end: Fraction = 0.0
    """Share of the rate that a cosine ends at."""

    @model_validator(mode="after")
    def _an_end_to_fall_to(self) -> Schedule:
        if "end" in self.model_fields_set and self.name != "cosine":
            message = f"has no effect with name: {self.name}, only with name: cosine"
            raise refused(message, "end", because=[("name",)])
        return self


class Training(Section):
    """The budget and the loss of one task."""

    steps: Count | Literal["auto"] = 100
    """Of one task; ``auto``: as many as pass its training images (shots × classes) ``epochs`` times, within
    ``bounds``."""
    epochs: Annotated[float, Field(gt=0, le=MOST)] = 25.0
    """Passes over the training images with ``steps: auto``."""
    bounds: Annotated[list[Count], Field(min_length=2, max_length=2)] = [40, 400]
    """Fewest and most steps of a task with ``steps: auto``."""
    batch_size: Count = 32
    """Images a step."""
    loss: Loss = CrossEntropy(kind="classes")
    """``classes`` (cross-entropy), ``batch`` (CLIP's own), or one of those for uneven shots; a name, or a
    section with ``kind`` and the settings of that loss."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all classes."""
    prompts: Literal["sample", "first", "ensemble"] = "sample"
    """Per step one random template, always the first, or all of them; evaluation always uses all."""
    classes: Literal["auto", "task", "seen"] = "auto"
    """Class-incremental only: contrast a batch with the task's own classes or all classes seen so far. By
    default the task's, but all where nothing of the towers is trained, or images of earlier tasks are trained
    on too (``memory``, another ``stream``) or may be (``plugin``). A head has a rule of its own,
    ``head.classes``, which follows this one where it is said."""
    stream: Literal["sequential", "cumulative", "joint"] = "sequential"
    """Each task alone; each with all earlier ones; or all at once in place of the first, with the steps of
    all."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the towers while training; trained parameters, logits, losses and evaluation stay in 32
    bits."""
    chunk: Count | None = None
    """Images and prompts that a tower computes at a time while training, and again for the gradient: less
    memory, more
    time, the same result but for rounding (and, with ``adapter.dropout``, for the masks, which are drawn for
    each part)."""
    checkpointing: bool = False
    """Blocks of the towers are computed again for the gradient instead of being remembered: less memory,
    about a third
    more time, the same result but for rounding."""
    compile: bool = False
    """The towers' training programs are made by ``torch.compile``, anew for every task: the same result but
    for
    rounding. Needs a compiler (on the CPU g++); pays where a task has many steps."""
    remember: bool = True
    """What the frozen beginning of the image tower makes of training images that are not augmented is
    computed once a
    task: the same result but for rounding."""
    on_nan: Literal["stop", "skip"] = "stop"
    """A loss or gradient that is no number ends the run, or its step changes nothing."""
    weight_noise: Annotated[float, Field(gt=0)] | None = None
    """ρ of Flat-LoRA: gradients are those of weights disturbed by so much of their rows' lengths, more
    towards the end of a task."""
    average_every: Count | None = None
    """Take the mean of the trained weights at every so many steps as the result of a task (ZSCL's weight
    ensemble)."""

    @model_validator(mode="after")
    def _classes_to_smooth(self) -> Training:
        if self.loss.kind != "classes" and self.label_smoothing > 0:
            message = f"has no effect with loss: {self.loss.kind}, only with loss: classes"
            raise refused(message, "label_smoothing", because=[("loss",)])
        return self

    @model_validator(mode="after")
    def _one_way_to_compute(self) -> Training:
        other = next((key for key in ("checkpointing", "chunk") if getattr(self, key)), None)
        if self.compile and other is not None:
            raise refused(f"does not go with {other}; give one of the two", "compile", because=[(other,)])
        return self

    @model_validator(mode="after")
    def _bounds_of_auto(self) -> Training:
        idle = next((key for key in ("epochs", "bounds") if key in self.model_fields_set), None)
        if self.steps != "auto" and idle is not None:
            raise refused(f"has no effect with steps: {self.steps}, only with steps: auto", idle)
        if self.bounds[0] > self.bounds[1]:
            raise refused(f"must be the fewest and the most steps, got {self.bounds}", "bounds")
        return self

    @model_validator(mode="after")
    def _something_to_average(self) -> Training:
        fewest = self.bounds[0] if self.steps == "auto" else self.steps
        if self.average_every is not None and self.average_every > fewest:
            key = "bounds" if self.steps == "auto" else "steps"
            told = f"the fewest steps of {key}" if self.steps == "auto" else key
            message = f"must be at most {told} ({fewest}), or nothing but the start is averaged"
            raise refused(message, "average_every", because=[(key,)])
        return self

    def steps_for(self, images: int) -> int:
        """Steps of a task with so many training images: min(max(⌈epochs · images / batch_size⌉, fewest),
        most) with ``steps: auto``."""
        if self.steps != "auto":
            return self.steps
        fewest, most = self.bounds
        return min(max(math.ceil(self.epochs * images / self.batch_size), fewest), most)
