"""Schema of a scenario: the stream of few-shot tasks and the held-out sets, of classes or of captions."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from .base import MOST, Count, CountOrZero, EachOnce, Name, PathText, Section, Template, Text, refused
from .sources import CAPTIONED, LabelledSource, RetrievalSource, SourceConfig, TaskSource, of_captions

DEFAULT_PROMPTS = ["a photo of a {}."]


Channels = Annotated[list[float], Field(min_length=3, max_length=3)]

Protocol = Literal["task-incremental", "class-incremental", "domain-incremental"]


class Model(Section):
    """The CLIP that the stream starts from."""

    name: Text = "embedded"
    """An open_clip architecture (``ViT-B-16``), ``hf-hub:owner/name`` or ``local-dir:folder`` of a published
    one with its weights, or ``embedded`` for the small one that ships with the package."""
    pretrained: PathText | None = None
    """An open_clip tag (``openai``) or a checkpoint file; not for ``embedded``."""
    config: PathText | None = None
    """An open_clip model-config JSON file for an architecture that open_clip does not know."""
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Pixels of a side, where another size than the model's own is wanted (and its tower can do it)."""
    mean: Channels | None = None
    """What is taken from pixels in 0..1, by colour channel, before they are divided by ``std``."""
    std: Channels | None = None
    """Normalisation of pixels in 0..1 by colour channel, where the weights want another than open_clip
    assumes."""


class Augmentation(Section):
    """What may happen to a training image; a property of the data (a flipped digit is another digit)."""

    crop: Annotated[list[float], Field(min_length=2, max_length=2)] = [0.7, 1.0]
    """Smallest and largest share of the area that a random crop keeps, before a side that would be longer
    than the picture's is cut to it (which takes up to 13 % of large shares); [1, 1] for none."""
    flip: bool = False
    """Mirror half of the images."""

    @property
    def changes(self) -> bool:
        """Whether it does anything."""
        return self.flip or self.crop != [1, 1]

    @field_validator("crop")
    @classmethod
    def _ordered(cls, value: list[float]) -> list[float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise refused(f"must be [smallest, largest] with 0 < smallest ≤ largest ≤ 1, got {value}")
        return value


class LongTail(Section):
    """Shots that fall exponentially from the first class to the last (Cui et al., CVPR 2019)."""

    most: Count
    """Shots of the first class."""
    least: Count = 1
    """Shots of the last class."""

    def of(self, classes: int) -> list[int]:
        """Shots by class: most · (least / most)^(i / (classes − 1)), rounded."""
        ratio = self.least / self.most
        return [round(self.most * ratio ** (i / max(1, classes - 1))) for i in range(classes)]


def _falling(shots: Any) -> Any:
    if isinstance(shots, LongTail) and shots.least > shots.most:
        raise refused(f"must be at most most ({shots.most}), got {shots.least}", "least", because=[("most",)])
    return shots


class ShotGroups(Section):
    """Which classes have many training images and which have few, where accuracy is told by shots."""

    many: Count = 16
    """Classes of more shots are many (in the literature 100, of streams of more than a few shots)."""
    few: Count = 5
    """Classes of fewer are few (20 there)."""

    @model_validator(mode="after")
    def _apart(self) -> ShotGroups:
        if self.few > self.many + 1:
            raise refused(
                f"must be at most many + 1 ({self.many + 1}), got {self.few}", "few", because=[("many",)]
            )
        return self


Shots = Count | Literal["all"] | LongTail
Sampler = Literal["uniform", "coop", "clip_lora"]
Precision = Literal["fp32", "tf32", "bf16"]


class Task(Section):
    """One few-shot task of the stream."""

    name: Name
    """What the task is called everywhere."""
    source: TaskSource
    """Where its images come from."""
    classes: Annotated[list[Text], Field(min_length=1), EachOnce] | None = None
    """Class names to take from the source, in this order; all by default."""
    class_range: Annotated[list[CountOrZero], Field(min_length=2, max_length=2)] | None = None
    """``[first, end)`` of the source's classes: a class split such as CIFAR-100 in ten parts."""
    shots: Annotated[Shots | Annotated[list[Count], Field(min_length=1)] | None, AfterValidator(_falling)] = (
        None
    )
    """Training images per class, or one number for every class; the scenario's by default."""
    sampler: Sampler | None = None
    """How shots are drawn; the scenario's way by default."""
    split_file: PathText | None = None
    """A published list of training images (JSON lines) instead of a draw."""
    prompts: Annotated[list[Template], Field(min_length=1)] | None = None
    """Texts that a class name is filled into; by default what the scenario says, else what the source brings,
    else the scenario's default."""
    test_limit: Count | None = None
    """At most this many test images, spread evenly over the classes."""
    augment: Augmentation | None = None
    """What may happen to training images; the scenario's by default."""
    images: Annotated[int, Field(ge=2, le=MOST)] | None = None
    """Training pictures of a task of captions; all by default."""
    validation_images: Annotated[int, Field(ge=2, le=MOST)] | None = None
    """Pictures of a task of captions set apart from the training pool, for choosing hyper-parameters."""

    @property
    def captioned(self) -> bool:
        """Whether it has pictures with captions, which are of no class."""
        return of_captions(self.source)

    @field_validator("class_range")
    @classmethod
    def _not_empty(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and value[0] >= value[1]:
            raise refused(f"must be [first, end] with first < end (the end itself is left out), got {value}")
        return value

    @model_validator(mode="after")
    def _list_or_draw(self) -> Task:
        if self.split_file is not None:
            for key in ("shots", "sampler"):
                if getattr(self, key) is not None:
                    raise refused(
                        "has no effect with split_file, which names the images",
                        key,
                        because=[("split_file",)],
                    )
        return self

    @model_validator(mode="after")
    def _classes_or_captions(self) -> Task:
        of_classes = ("classes", "class_range", "shots", "sampler", "split_file", "prompts")
        keys = of_classes if self.captioned else ("images", "validation_images")
        for key in keys:
            if getattr(self, key) is not None:
                why = "is for tasks of captions; a task of classes has shots"
                if self.captioned:
                    told = (
                        "images says how many are trained on" if key == "shots" else "its texts are captions"
                    )
                    why = f"has no effect on pictures with captions, which have no classes; {told}"
                raise refused(why, key, because=[("source",)])
        return self

    @model_validator(mode="after")
    def _one_class_choice(self) -> Task:
        if self.classes is not None and self.class_range is not None:
            raise refused("give classes or class_range, not both", "class_range", because=[("classes",)])
        return self


class ZeroShotSet(Section):
    """A held-out set whose accuracy before and after the stream is the retention."""

    name: Name
    """What the set is called everywhere."""
    source: SourceConfig
    """Where its images come from."""
    prompts: Annotated[list[Template], Field(min_length=1)] | Literal["imagenet-80", "imagenet-7"] | None = (
        None
    )
    """Templates, or CLIP's own ensembles for ImageNet; by default what the scenario says, else what the
    source brings, else the scenario's default."""
    images: Count | None = None
    """How many images, spread evenly over the classes and fixed for all runs; all by default."""


class RetrievalSet(Section):
    """Images with captions, of no task, whose R@1 before and after the stream is the retention of
    retrieval."""

    name: Name
    """What the set is called everywhere."""
    source: RetrievalSource
    """Where its images and texts come from."""
    images: Annotated[int, Field(ge=2, le=MOST)] | None = None
    """How many images, with all of their texts, fixed for all runs; all by default."""


class MultiLabelSet(Section):
    """Images that may show several classes, of no task, whose mAP before and after the stream is the
    retention of it."""

    name: Name
    """What the set is called everywhere."""
    source: LabelledSource
    """Where its images and labels come from."""
    prompts: Annotated[list[Template], Field(min_length=1)] | None = None
    """Templates; the scenario's by default."""
    images: Annotated[int, Field(ge=2, le=MOST)] | None = None
    """How many images, fixed for all runs; all by default."""
    compound: Annotated[list[Text], Field(min_length=1), EachOnce] | Literal["pairs", "none"] | None = None
    """Texts that name several classes, for SPARC's scores: your own, every two classes in one, or none. By
    default pairs, where there are more images than a class has partners and at most 50,000 pairs."""


class ReferenceSet(Section):
    """Images and texts of no task, for methods that hold the model to what it knew (their training images are
    used)."""

    source: SourceConfig
    """Where its images come from."""
    prompts: Annotated[list[Template], Field(min_length=1)] | None = None
    """Texts that a class name is filled into; by default what the scenario says, else what the source brings,
    else the scenario's default."""
    images: Count | None = None
    """How many images, spread evenly over the classes; all by default."""


class Evaluation(Section):
    """How answers are computed where the model is measured."""

    precision: Precision = "fp32"
    """Arithmetic of the towers; features, logits and probabilities stay in 32 bits. ``tf32`` is a way of
    NVIDIA GPUs. What is not ``fp32`` is told with the share of answers that it changes."""

    batch_size: Count = 256
    """Images at a time; fewer take less memory, and may change the last bits of features."""


def _prompted(part: Any) -> Any:
    """Parts of a scenario whose sources bring prompts and which name none, with the default ones."""
    if isinstance(part, list):
        return [_prompted(one) for one in part]
    source = part.get("source") if isinstance(part, dict) else None
    if not isinstance(source, dict) or part.get("prompts") is not None:
        return part
    kind, domain = source.get("kind"), source.get("domain")
    brings = kind == "dataset" or kind == "world" and domain not in CAPTIONED
    return {**part, "prompts": DEFAULT_PROMPTS} if brings else part


class Scenario(Section):
    """A stream of tasks."""

    name: Name
    """What runs, folders and reports are called."""
    description: str = ""
    """A sentence for lists of scenarios."""
    protocol: Protocol = "task-incremental"
    """Which classes the model is told at test time: those of the image's own task, those of all tasks
    together, or the same ones in every task."""
    model: Model = Model()
    """The CLIP that the stream starts from."""
    shots: Annotated[Shots, AfterValidator(_falling)] = 8
    """Training images per class: a number, ``all``, or ``{most: 16, least: 1}`` for a long tail."""
    shot_groups: ShotGroups | None = None
    """Bounds of many and few shots, by which accuracies are told; by default those of few-shot streams, where
    a task has uneven shots."""
    sampler: Sampler = "uniform"
    """``coop`` and ``clip_lora`` draw exactly as those projects do for the same seed and split file."""
    validation_shots: CountOrZero = 0
    """Images per class set apart from the training pool, for choosing hyper-parameters."""
    measure: Literal["test", "validation"] = "test"
    """Images that the matrix is measured on: ``validation`` to choose hyper-parameters without the test set.
    """
    evaluation: Evaluation = Evaluation()
    """How answers are computed where the model is measured."""
    prompts: Annotated[list[Template], Field(min_length=1)] = DEFAULT_PROMPTS
    """Texts that a class name is filled into, for tasks and sets that name none. Where this is not said, not
    even at its default, sets known by name and those of the embedded world have prompts of their own."""
    test_limit: Count | None = None
    """At most this many test images a task, spread evenly over the classes; all by default."""
    augment: Augmentation = Augmentation()
    """What may happen to training images; a task may say otherwise."""
    independent: bool = False
    """Every task starts from the pretrained weights and is measured by itself: few-shot learning without a
    stream."""
    broken: Literal["refuse", "skip"] = "refuse"
    """A picture that cannot be read ends the run, or is named and left out before shots are drawn."""
    tasks: Annotated[list[Task], Field(min_length=1)]
    """What is learned, in this order."""
    zero_shot: list[ZeroShotSet] = []
    """Sets of no task, whose accuracy before and after the stream is the retention."""
    retrieval: list[RetrievalSet] = []
    """Pictures with captions of no task; not measured on validation shots: settings are chosen without
    it."""
    multi_label: list[MultiLabelSet] = []
    """Pictures of several classes each, of no task; not measured on validation shots either."""
    reference: ReferenceSet | None = None
    """Images of no task for the methods that need them (``regularisers: [{kind: reference}]``)."""
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1), EachOnce] = [0, 1, 2]
    """Seeds that ``compare`` runs where it is told no others."""

    @property
    def shares_labels(self) -> bool:
        """Whether all tasks are told apart in one label space, by a model that goes from task to task."""
        return self.protocol != "task-incremental" and not self.independent

    @model_validator(mode="before")
    @classmethod
    def _default_prompts_as_said(cls, data: Any) -> Any:
        # A run records every setting, and one at its default reads as not said (.recorded). So a default that
        # somebody says, which goes before the prompts of sources, is written at each of these.
        if not isinstance(data, dict) or data.get("prompts") != DEFAULT_PROMPTS:
            return data
        said = {key: _prompted(data[key]) for key in ("tasks", "zero_shot", "reference") if key in data}
        return {**data, **said}

    @model_validator(mode="after")
    def _embedded_is_complete(self) -> Scenario:
        model = self.model
        if model.name == "embedded" and model.config is None and model.pretrained is not None:
            message = "the embedded model brings its own weights; leave pretrained out or name another model"
            raise refused(message, "model", "pretrained", because=[("model", "name")])
        for key in ("image_size", "mean", "std"):
            if model.name == "embedded" and model.config is None and getattr(model, key) is not None:
                message = "the embedded model brings its own; leave it out or name another model"
                raise refused(message, "model", key, because=[("model", "name")])
        if model.std is not None and min(model.std) <= 0:
            raise refused(f"must be greater than 0, got {model.std}", "model", "std")
        return self

    @model_validator(mode="after")
    def _something_to_measure(self) -> Scenario:
        # Pictures with captions have no classes: validation_images of their task says how many.
        with_classes = any(not task.captioned for task in self.tasks)
        if self.measure == "validation" and self.validation_shots == 0 and with_classes:
            raise refused(
                "validation needs validation_shots of at least 1", "measure", because=[("validation_shots",)]
            )
        return self

    @model_validator(mode="after")
    def _independent_tasks_meet_only_their_own_classes(self) -> Scenario:
        if self.independent and self.protocol == "class-incremental":
            message = (
                "class-incremental tells the classes of all tasks apart, which independent tasks never meet"
            )
            raise refused(message, "independent", because=[("protocol",)])
        return self

    @model_validator(mode="after")
    def _captions_have_no_classes_to_share(self) -> Scenario:
        for place, task in enumerate(self.tasks if self.protocol != "task-incremental" else ()):
            if task.captioned:
                shared = {
                    "class-incremental": "tells the classes of all tasks apart",
                    "domain-incremental": "gives all tasks the same classes",
                }[self.protocol]
                message = f"{self.protocol} {shared}, and captions are no classes; use task-incremental"
                raise refused(message, "tasks", place, "source", because=[("protocol",)])
        return self

    @model_validator(mode="after")
    def _names_once(self) -> Scenario:
        # Tasks and sets name files in one folder: there a space is a hyphen, and case may not count.
        first: dict[str, tuple[str, int]] = {}
        for section in ("tasks", "zero_shot", "retrieval", "multi_label"):
            for index, entry in enumerate(getattr(self, section)):
                file = re.sub(" +", "-", entry.name).casefold()
                if file in first:
                    other, position = first[file]
                    message = f"{entry.name!r} is already the name of {other}[{position}]"
                    if entry.name != getattr(self, other)[position].name:
                        message += " but for case or spaces, which do not count"
                    at = (section, index, "name")
                    raise refused(
                        f"{message}; each name may stand once", *at, because=[(other, position, "name")]
                    )
                first[file] = (section, index)
        return self

    def shots_of(self, task: Task, classes: int) -> list[int | None]:
        """Training images of every class of a task; None for all of them."""
        shots = task.shots if task.shots is not None else self.shots
        if isinstance(shots, LongTail):
            return list(shots.of(classes))
        if isinstance(shots, list):
            return list(shots)
        return [None if shots == "all" else shots] * classes
