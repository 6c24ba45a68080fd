"""Sets of images that a model is asked about: known on paper, answered a part at a time, told as a whole.

What is answered about an image depends on nothing but the image, the model and the batch that it is computed
in. So parts that begin and end where batches do have the answers of the whole to the bit; other batches would
have other shapes, for which libraries choose other programs, with other last bits.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..clip.classifier import ClipClassifier
from ..clip.evaluate import answers, image_features, share_right
from ..clip.heads.head import Answering
from ..clip.heads.head_forms import to_tensors
from ..clip.heads.several import SeveralHeads
from ..clip.label_scores import compound_tokens, precisions
from ..clip.retrieval import ranks, text_features
from ..data.captions.multi_label_sets import MultiLabelPlan
from ..data.captions.retrieval_sets import CaptionPlan
from ..data.images.cache import load_part
from ..data.images.pixels import Pixels
from ..data.items import Item, Source
from ..data.labels import LabelSpace
from ..metrics import recall_at
from ..store.forms import DIRECTIONS, PRECISIONS, RECALLS, TRANSDUCTIVE
from ..store.tensors import digest_of


@dataclass(frozen=True)
class Measured:
    """Accuracy on one data set, R@k of a retrieval set, or mAP of a multi-label set.

    Attributes:
        name: of the task, set or folder.
        accuracy: fraction.
        images: how many.
        recorded: what the run itself measured in the same state; None where it did not.
        share: whether it is a share of the images, as mAP is not.
        classes: that the model chose among; none of a retrieval set.
    """

    name: str
    accuracy: float
    images: int
    recorded: float | None = None
    share: bool = True
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked(ABC):
    """Images of one source, and what is asked about each.

    Attributes:
        name: of the task or set.
        source: of the images.
        items: all of them, in order.
    """

    name: str
    source: Source
    items: tuple[Item, ...]

    @abstractmethod
    def answer(self, classifier: ClipClassifier, pixels: Tensor) -> dict[str, Tensor]:
        """One row for each of some images, by the name of what it is; on the CPU."""

    @abstractmethod
    def measured(self, classifier: ClipClassifier, found: Mapping[str, Tensor]) -> list[Measured]:
        """What the answers to all images come to."""

    @abstractmethod
    def about(self) -> Any:
        """Everything that answers depend on beside model and images, as JSON has it."""

    @abstractmethod
    def fits(self, found: Mapping[str, Tensor], images: int) -> bool:
        """Whether these may be the answers to so many images."""

    def right(self, found: Mapping[str, Tensor], start: int, stop: int) -> int | None:
        """How many answers to images ``start`` to ``stop`` are right, where one image alone can tell."""
        return None

    def identity(self) -> str:
        """SHA-256 of what is asked about which images."""
        shown = zip(self.items, self.source.fingerprints(self.items), strict=True)
        told = [type(self).__name__, self.name, [[item.label, seen] for item, seen in shown]]
        reading = str(self.source.reading(self.items))
        return hashlib.sha256(json.dumps([*told, reading, self.about()]).encode()).hexdigest()


@dataclass(frozen=True)
class ClassSet(Asked):
    """Images of one class each.

    Attributes:
        labels: ``(N,)`` places of the right classes in the space.
        space: classes to choose among.
        head: what answers in place of the texts.
    """

    labels: Tensor
    space: LabelSpace
    head: Answering | None = None

    def answer(self, classifier: ClipClassifier, pixels: Tensor) -> dict[str, Tensor]:
        """``label`` and its probability, ``share``."""
        label, share = answers(classifier, pixels, self.space, self.head)
        return {"label": label.int(), "share": share}

    def measured(self, classifier: ClipClassifier, found: Mapping[str, Tensor]) -> list[Measured]:
        """Accuracy."""
        right = share_right(found["label"], self.labels)
        return [Measured(self.name, right, len(self.items), classes=tuple(self.space.class_names))]

    def right(self, found: Mapping[str, Tensor], start: int, stop: int) -> int | None:
        """As in the base class."""
        return int((found["label"] == self.labels[start:stop]).sum())

    def about(self) -> Any:
        """As in the base class."""
        head: Any = None
        if isinstance(self.head, SeveralHeads):
            head = [digest_of(to_tensors(one)) for one in self.head.heads]
        elif self.head is not None:
            head = digest_of(to_tensors(self.head))
        return [self.labels.tolist(), self.space.class_names, self.space.prompts, head]

    def fits(self, found: Mapping[str, Tensor], images: int) -> bool:
        """As in the base class."""
        label, share = found.get("label"), found.get("share")
        return (
            len(found) == 2
            and label is not None
            and share is not None
            and label.shape == share.shape == (images,)
            and label.dtype == torch.int32
            and bool(((label >= 0) & (label < len(self.space))).all())
        )


@dataclass(frozen=True)
class _Seen(Asked):
    """Images that are told about by their features."""

    def answer(self, classifier: ClipClassifier, pixels: Tensor) -> dict[str, Tensor]:
        """Unit ``features``."""
        return {"features": image_features(classifier, pixels).cpu()}

    def about(self) -> Any:
        """As in the base class."""
        return self.plan.sha256()

    def fits(self, found: Mapping[str, Tensor], images: int) -> bool:
        """As in the base class."""
        features = found.get("features")
        return len(found) == 1 and features is not None and features.ndim == 2 and len(features) == images


@dataclass(frozen=True)
class CaptionSet(_Seen):
    """Images with captions; ``images`` of what is measured are queries."""

    plan: CaptionPlan

    def measured(self, classifier: ClipClassifier, found: Mapping[str, Tensor]) -> list[Measured]:
        """R@1, R@5 and R@10, both ways."""
        texts = text_features(classifier, classifier.text.tokenizer(list(self.plan.captions)))
        both = ranks(found["features"].to(texts.device), texts, self.plan.owners)
        return [
            Measured(retrieval_name(self.name, direction, told), recall_at(placed, k), len(placed))
            for direction, placed in zip(DIRECTIONS, both, strict=True)
            for told, k in RECALLS.items()
        ]


@dataclass(frozen=True)
class LabelledSet(_Seen):
    """Images that may show several classes."""

    plan: MultiLabelPlan

    def measured(self, classifier: ClipClassifier, found: Mapping[str, Tensor]) -> list[Measured]:
        """mAP by every scorer that there is."""
        tokens = compound_tokens(classifier, self.plan)
        features, classes = found["features"].to(classifier.mean.device), tuple(self.plan.class_names)
        values = precisions(classifier, features, self.plan, tokens, features)
        return [
            Measured(label_name(self.name, scorer), value, len(self.items), None, False, classes)
            for scorer, value in zip(PRECISIONS, values, strict=True)
            if value == value
        ]


@dataclass(frozen=True)
class Part:
    """Images ``start`` to ``stop`` of the set at a place among those asked about; both where batches end."""

    place: int
    start: int
    stop: int


def parts_of(sizes: Sequence[int], batch_size: int, number: int = 1, of: int = 1) -> list[Part]:
    """Share ``number`` (from 1) of ``of`` equal shares of the batches of all sets, one set after another.

    Args:
        sizes: images of every set.
        batch_size: images of a batch.
        number, of: which share, of how many; shares are empty where there are more of them than batches.
    """
    batches = [
        (place, start, min(start + batch_size, size))
        for place, size in enumerate(sizes)
        for start in range(0, size, batch_size)
    ]
    parts: list[Part] = []
    for place, start, stop in batches[(number - 1) * len(batches) // of : number * len(batches) // of]:
        if parts and parts[-1].place == place:
            parts[-1] = Part(place, parts[-1].start, stop)
        else:
            parts.append(Part(place, start, stop))
    return parts


def answer_parts(
    classifier: ClipClassifier, asked: Sequence[Asked], parts: Sequence[Part], pixels: Pixels
) -> Iterator[tuple[Part, dict[str, Tensor]]]:
    """Answers to parts of sets, which alone are loaded."""
    for part in parts:
        one = asked[part.place]
        loaded = load_part(one.source, one.items, pixels, part.start, part.stop)
        yield part, one.answer(classifier, loaded)


def together(found: Sequence[tuple[Part, Mapping[str, Tensor]]]) -> dict[int, dict[str, Tensor]]:
    """Place of a set → its answers, from those to all of its parts, in order."""
    by_set: dict[int, list[Mapping[str, Tensor]]] = {}
    for part, answered in found:
        by_set.setdefault(part.place, []).append(answered)
    return {
        place: {key: torch.cat([one[key] for one in parts]) for key in parts[0]}
        for place, parts in by_set.items()
    }


def label_name(name: str, scorer: str) -> str:
    """``voc, mAP`` or ``voc, mAP normalised (transductive)``."""
    told = scorer.replace("_sparc", " SPARC").replace("_", " ")
    return f"{name}, {told}" + (" (transductive)" if scorer in TRANSDUCTIVE else "")


def retrieval_name(name: str, direction: str, told: str) -> str:
    """``captions, image to text R@1``."""
    return f"{name}, {direction.replace('_', ' ')} {told}"
