"""Which images and classes a multi-label set holds; no pixel is loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ...config.loading import Located
from ...config.scenario import MultiLabelSet, Scenario
from ...errors import UserError
from ..items import Item, Source, items_at
from ..names.compound_prompts import CompoundPrompts, matched, pairs
from ..telling import counted
from .captioned import TEST
from .retrieval_sets import drawn_evenly

# COCO's 80 classes make 3160 pairs, and 316 classes no more than this; the 1203 of LVIS would make 723,003
# texts, each encoded after every task, and a score of each for every image.
MOST_PAIRS = 50_000


@dataclass(frozen=True)
class MultiLabelPlan:
    """The images of a multi-label set, and what they show.

    Attributes:
        name: of the set.
        class_names: K classes in label order.
        prompts: templates.
        test: N images.
        labels: of every image, the places of its classes.
        compound: prompts that name several classes.
        source: where to load from.
    """

    name: str
    class_names: tuple[str, ...]
    prompts: tuple[str, ...]
    test: tuple[Item, ...]
    labels: tuple[tuple[int, ...], ...]
    compound: CompoundPrompts
    source: Source

    @property
    def positive(self) -> list[list[bool]]:
        """``N × K``: what every image shows."""
        return [[k in own for k in range(len(self.class_names))] for own in self.labels]

    @property
    def counted(self) -> int:
        """Classes that some image shows, over which mAP is the mean."""
        return len({label for own in self.labels for label in own})

    def manifest(self) -> list[dict[str, Any]]:
        """Every image as ``{"split", "labels", "key"}``, with ``"bytes"`` where it is a file."""
        return [
            {"split": TEST, "labels": [self.class_names[k] for k in own], **item.told()}
            for item, own in zip(self.test, self.labels, strict=True)
        ]

    def sha256(self) -> str:
        """Fingerprint of images, classes and prompts."""
        told = [self.manifest(), self.class_names, self.prompts, self.compound.texts]
        return hashlib.sha256(json.dumps(told, ensure_ascii=False).encode()).hexdigest()


def plan_multi_label(
    located: Located[Scenario], entry: MultiLabelSet, source: Source, seed: int, path: tuple
) -> MultiLabelPlan | None:
    """Choose the images: the same for every seed, in the source's order. None where the scenario measures
    validation images, so that settings are never chosen by what is reported.

    Raises:
        UserError: for fewer than two images, or too few for the compound prompts that were asked for.
    """
    if located.value.measure == "validation":
        return None
    items = drawn_evenly(items_at(located, path, source, TEST), entry.images, "multi-label")
    labelled = getattr(source, "source", source)  # also where broken pictures are left out
    labels = tuple(labelled.labels(item) for item in items)
    names, scenario = tuple(source.class_names), located.value
    if len(items) < 2 or not any(labels):
        told = counted(len(items), "image") if len(items) < 2 else "no image that shows one of its classes"
        problem = f"multi-label set '{entry.name}' has {told}; mAP needs two images, and one with a class"
        raise UserError(located.fault((*path, "source"), problem))
    prompts = tuple(entry.prompts or scenario.prompts)
    asked, told = _asked(entry, len(names), len(items))
    if told is not None:
        labelled.notes.append(told)
    compound = _compound(located, asked, names, prompts[0], len(items), path)
    return MultiLabelPlan(entry.name, names, prompts, tuple(items), labels, compound, source)


def _asked(entry: MultiLabelSet, classes: int, images: int) -> tuple[list[str] | str, str | None]:
    """Which compound prompts a set has, what it does not say itself by default; and what to tell of it."""
    if entry.compound is not None:
        return entry.compound, None
    number = classes * (classes - 1) // 2
    if images <= classes or number <= MOST_PAIRS:
        return "none" if images <= classes else "pairs", None
    return "none", (
        f"multi-label set '{entry.name}' has no compound prompts, since its {classes} classes make {number:,}"
        " pairs; compound: pairs asks for all of them, a list of texts for those"
    )


def _compound(
    located: Located[Scenario],
    asked: list[str] | str,
    names: tuple[str, ...],
    template: str,
    images: int,
    path: tuple,
) -> CompoundPrompts:
    """The compound prompts of a set, of which no class may have more than there are images."""
    if asked == "none":
        return CompoundPrompts((), tuple(() for _ in names))
    made = matched(names, asked) if isinstance(asked, list) else pairs(names, template)
    if isinstance(asked, list):
        mentioned = {place for own in made.of for place in own}
        for place, text in enumerate(asked):
            if place not in mentioned:
                told = ", ".join(map(repr, names[:8])) + (" …" if len(names) > 8 else "")
                problem = f"{text!r} names none of the set's classes: {told}"
                raise UserError(located.fault((*path, "compound", place), problem))
    if images <= made.most + 1:
        problem = (
            f"{made.most} of these prompts name one class, which needs more than {made.most + 1} images;"
            f" the set has {images}; name fewer, or compound: none"
        )
        raise UserError(located.fault((*path, "compound"), problem))
    return made
