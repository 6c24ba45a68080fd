"""Schema of a strategy's optimiser, schedule and training: how the weights of an experience are moved."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Count, Fraction, Section, refused

Whole = Literal["weights", "biases", "norms", "positions", "tokens"]


class Optimiser(Section):
    """How the trainable weights are updated."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0)]
    rates: dict[Whole, Annotated[float, Field(gt=0)]] = {}
    """Learning rates of some kinds of parameters that ``adapter.whole`` trains as they are (``tokens:
    3e-3``)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [
        0.9,
        0.999,
    ]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    clip_norm: Annotated[float, Field(gt=0)] | None = 5.0

    @model_validator(mode="after")
    def _momentum_is_sgd(self) -> Optimiser:
        if "momentum" in self.model_fields_set and self.name != "sgd":
            message = f"has no effect with name: {self.name}, only with name: sgd"
            raise refused(message, "momentum", because=[("name",)])
        if "betas" in self.model_fields_set and self.name == "sgd":
            raise refused(
                "has no effect with name: sgd, only with name: adam or adamw", "betas", because=[("name",)]
            )
        return self


class Schedule(Section):
    """Learning rate over the steps of one task."""

    name: Literal["cosine", "constant"] = "cosine"
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

    steps: Count = 100
    batch_size: Count = 32
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    prompts: Literal["sample", "first", "ensemble"] = "sample"
    """Per step one random template, always the first, or all of them; evaluation always uses all."""
    classes: Literal["task", "seen"] = "seen"
    """Class-incremental only: contrast a batch with the task's own classes or all classes seen so far."""
    stream: Literal["sequential", "cumulative", "joint"] = "sequential"
    """Each task alone; each with all earlier ones; or all at once in place of the first, with the steps of
    all."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the towers while training; trained parameters, logits, losses and evaluation stay in 32
    bits."""
    chunk: Count | None = None
    """Images and prompts that a tower computes at a time while training, and again for the gradient: less
    memory, more
    time, the same result but for rounding."""
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
    def _one_way_to_compute(self) -> Training:
        other = next((key for key in ("checkpointing", "chunk") if getattr(self, key)), None)
        if self.compile and other is not None:
            raise refused(f"does not go with {other}; give one of the two", "compile", because=[(other,)])
        return self

    @model_validator(mode="after")
    def _something_to_average(self) -> Training:
        if self.average_every is not None and self.average_every > self.steps:
            message = f"must be at most steps ({self.steps}), or nothing but the start is averaged"
            raise refused(message, "average_every", because=[("steps",)])
        return self
