"""Schema of a scenario: the stream of few-shot tasks and the held-out zero-shot sets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from .base import Count, Name, Section, Template, Text
from .source import SourceConfig

DEFAULT_PROMPTS = ["a photo of a {}."]


class Model(Section):
    """The CLIP that the stream starts from."""

    name: Text = "embedded"
    """An open_clip architecture (``ViT-B-16``), or ``embedded`` for the small one that ships with the package."""
    pretrained: Text | None = None
    """An open_clip tag (``openai``) or a checkpoint file; not for ``embedded``."""
    config: Text | None = None
    """An open_clip model-config JSON file for an architecture that open_clip does not know."""


class Augmentation(Section):
    """What may happen to a training image; a property of the data (a flipped digit is another digit)."""

    crop: Annotated[list[float], Field(min_length=2, max_length=2)] = [0.7, 1.0]
    """Smallest and largest share of the area that a random crop keeps; [1, 1] for none."""
    flip: bool = False
    """Mirror half of the images."""

    @field_validator("crop")
    @classmethod
    def _ordered(cls, value: list[float]) -> list[float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise ValueError("must be two numbers with 0 < smallest ≤ largest ≤ 1")
        return value


class Task(Section):
    """One few-shot task of the stream."""

    name: Name
    source: SourceConfig
    classes: Annotated[list[Text], Field(min_length=1)] | None = None
    """Class names to take from the source, in this order; all by default."""
    class_range: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)] | None = None
    """``[first, end)`` of the source's classes: a class split such as CIFAR-100 in ten parts."""
    shots: Count | Literal["all"] | None = None
    """Training images per class; the scenario's by default."""
    prompts: Annotated[list[Template], Field(min_length=1)] | None = None
    test_limit: Count | None = None
    """At most this many test images, spread evenly over the classes."""
    augment: Augmentation | None = None

    @model_validator(mode="after")
    def _one_class_choice(self) -> Task:
        if self.classes is not None and self.class_range is not None:
            raise ValueError("give classes or class_range, not both")
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes has a name twice: {_duplicate(self.classes)!r}")
        if self.class_range is not None and self.class_range[0] >= self.class_range[1]:
            raise ValueError("class_range must be [first, end) with first < end")
        return self


class ZeroShotSet(Section):
    """A held-out set whose accuracy before and after the stream is the retention."""

    name: Name
    source: SourceConfig
    prompts: Annotated[list[Template], Field(min_length=1)] | None = None
    images: Count | None = None
    """How many images, spread evenly over the classes and fixed for all runs; all by default."""


class Scenario(Section):
    """A stream of tasks."""

    name: Name
    description: str = ""
    protocol: Literal["task-incremental", "class-incremental", "domain-incremental"] = "task-incremental"
    model: Model = Model()
    shots: Count | Literal["all"] = 8
    validation_shots: Annotated[int, Field(ge=0)] = 0
    """Images per class set apart from the training pool, for choosing hyper-parameters."""
    prompts: Annotated[list[Template], Field(min_length=1)] = DEFAULT_PROMPTS
    test_limit: Count | None = None
    augment: Augmentation = Augmentation()
    tasks: Annotated[list[Task], Field(min_length=1)]
    zero_shot: list[ZeroShotSet] = []
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0, 1, 2]

    @model_validator(mode="after")
    def _names_once(self) -> Scenario:
        for kind, names in (("task", [t.name for t in self.tasks]), ("zero-shot set", [z.name for z in self.zero_shot])):
            # Folder and file names are made of them, and some file systems ignore case.
            folded = [name.casefold() for name in names]
            if len(set(folded)) != len(folded):
                raise ValueError(f"two {kind}s have the name {_duplicate(folded)!r}; each name may stand once")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds has {_duplicate(self.seeds)} twice")
        return self

    def shots_of(self, task: Task) -> int | None:
        """Training images per class of a task; None for all of them."""
        shots = task.shots if task.shots is not None else self.shots
        return None if shots == "all" else shots


def _duplicate(values: list) -> object:
    return next(value for index, value in enumerate(values) if value in values[:index])
