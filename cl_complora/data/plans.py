"""Which images the tasks and sets of a scenario use, on paper."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..config.scenario import Augmentation
from .captions.multi_label_sets import MultiLabelPlan
from .captions.retrieval_sets import CaptionPlan
from .items import Item, Source


@dataclass(frozen=True)
class Plan:
    """Which images a task uses and what they are called; no pixel loaded yet.

    Attributes:
        name: the task's or zero-shot set's name.
        class_names: its classes in label order.
        prompts: templates.
        train, validation, test: items whose label counts within ``class_names``.
        shots: training images per class, for each class where they differ, or None where all or listed ones
            are used.
        augment: what training images may undergo.
        source: where to load from.
        texts: of a task of captions, key of every image → what is written under it; it has no classes and no
            prompts. None where images have classes.
    """

    name: str
    class_names: tuple[str, ...]
    prompts: tuple[str, ...]
    train: tuple[Item, ...]
    validation: tuple[Item, ...]
    test: tuple[Item, ...]
    shots: int | tuple[int | None, ...] | None
    augment: Augmentation
    source: Source
    texts: Mapping[str, tuple[str, ...]] | None = None

    @property
    def captioned(self) -> bool:
        """Whether it is a task of captions."""
        return self.texts is not None

    def captions(self, part: str) -> CaptionPlan:
        """``train``, ``validation`` or ``test`` of a task of captions as retrieval is measured on it."""
        items = getattr(self, part)
        return CaptionPlan(self.name, items, tuple(self.texts[item.key] for item in items), self.source)

    def manifest(self) -> list[dict]:
        """Every chosen image as ``{"split", "class", "key"}``, of captions with ``"texts"`` in place of the
        class, and with ``"bytes"`` where it is a file."""
        parts = (("train", self.train), ("validation", self.validation), ("test", self.test))
        return [{"split": split, **self._told(item), **item.told()} for split, part in parts for item in part]

    def _told(self, item: Item) -> dict[str, Any]:
        if self.texts is not None:
            return {"texts": list(self.texts[item.key])}
        return {"class": self.class_names[item.label]}

    def sha256(self) -> str:
        """Fingerprint of the chosen images and their names."""
        return hashlib.sha256(json.dumps(self.manifest(), ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class Plans:
    """The plans of a whole scenario for one seed.

    Attributes:
        tasks, zero_shot, reference: the plans.
        skipped: a line for every picture that was left out because it cannot be read (``broken: skip``).
        notes: what the sources tell: what was passed over, or taken for something.
        retrieval: images with captions, which are of no class.
        multi_label: images that may show several classes.
    """

    tasks: tuple[Plan, ...]
    zero_shot: tuple[Plan, ...]
    reference: Plan | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    retrieval: tuple[CaptionPlan, ...] = ()
    multi_label: tuple[MultiLabelPlan, ...] = ()

    def measured_captions(self, measure: str) -> tuple[CaptionPlan, ...]:
        """Everything that retrieval is measured on: tasks of captions, then retrieval sets.

        Args:
            measure: the scenario's, ``test`` or ``validation``.
        """
        tasks = tuple(task.captions(measure) for task in self.tasks if task.captioned)
        return tasks + self.retrieval

    def __iter__(self) -> Iterator[Plan]:
        """All plans but those of retrieval sets, tasks first."""
        yield from (*self.tasks, *self.zero_shot, *([self.reference] if self.reference else []))

    @property
    def beside(self) -> tuple[CaptionPlan | MultiLabelPlan, ...]:
        """All sets whose images have no one class."""
        return (*self.retrieval, *self.multi_label)

    def opened(self, measure: str) -> Plans:
        """Of all images those that a run has to look into: one that measures on validation images opens no
        test image of a task.

        Args:
            measure: the scenario's.
        """
        if measure == "test":
            return self
        return replace(self, tasks=tuple(replace(task, test=()) for task in self.tasks))
