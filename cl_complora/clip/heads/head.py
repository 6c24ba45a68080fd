"""What every head has in common: it turns unit image features into logits over the classes of a label space.

A head knows some classes. Of the others it says what their texts say, so that an image whose classes no head
knows is answered exactly as without one.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ...data.labels import LabelSpace
from ..classifier import ClipClassifier


@dataclass(frozen=True)
class Question:
    """A batch of images and the classes to choose among.

    Attributes:
        features: ``N × D`` unit image features.
        names: the K classes.
        texts: ``K × D`` their unit text features.
        text_logits: ``N × K``, what the model answers without a head.
        scale: τ, the factor on cosines in them.
        untouched: ``N × D`` features of the untouched tower; None where there is none beside the model's own.
    """

    features: Tensor
    names: tuple[str, ...]
    texts: Tensor
    text_logits: Tensor
    scale: Tensor
    untouched: Tensor | None = None

    @classmethod
    def of(cls, classifier: ClipClassifier, seen: Tensor, space: LabelSpace) -> Question:
        """The question of a label space to a model, about what it has
        :meth:`~cl_complora.clip.classifier.ClipClassifier.seen`."""
        texts = classifier.text.features(space)
        scale = classifier.clip.logit_scale.detach().float().exp()
        width = texts.shape[1]
        features, untouched = seen[:, :width], seen[:, width:] if seen.shape[1] > width else None
        logits = classifier.scores(features, texts)
        return cls(features, space.class_names, texts, logits, scale, untouched)

    def seen(self, both: bool) -> Tensor:
        """``N × D`` features, or ``N × 2 D`` with those of the untouched tower beside them.

        Raises:
            ValueError: where both are asked for and the classifier has no untouched tower.
        """
        if not both:
            return self.features
        if self.untouched is None:
            raise ValueError("the head also reads the untouched image tower, which this classifier lacks")
        return torch.cat([self.features, self.untouched], 1)

    def among(self, chosen: Sequence[int]) -> Question:
        """The same images, and only some of the classes."""
        columns = list(chosen)
        names = tuple(self.names[k] for k in columns)
        texts, logits = self.texts[columns], self.text_logits[:, columns]
        return Question(self.features, names, texts, logits, self.scale, self.untouched)


class Answering(Protocol):
    """What answers a question: a head, or several."""

    reads_both: bool
    """Whether it is asked about what the untouched image tower sees as well."""

    def logits(self, question: Question) -> Tensor:
        """``N × K``; argmax is the answer, softmax its probability."""


@dataclass(frozen=True, eq=False)
class Head(ABC):
    """A fitted head. Its fields of kind Tensor, and of kind float, are what is stored of it.

    Attributes:
        classes: names, in the order of its rows.
        means: unit class means of what it reads of the task's shots, a row a class, by which the heads of
            several tasks tell whose a picture is; None where one head answers for all tasks, and of runs of
            before 2026-11-30.
    """

    classes: tuple[str, ...]
    means: Tensor | None = field(default=None, kw_only=True)

    kind: ClassVar[str]
    """Names the form in files."""
    formula: ClassVar[str]
    """How its logits come from ``image`` and ``text`` features, for those who use the exported file."""
    preamble: ClassVar[str] = ""
    """Lines before that."""
    reads_both: ClassVar[bool] = False
    """Whether it is asked about what the untouched image tower sees as well."""

    @abstractmethod
    def logits(self, question: Question) -> Tensor:
        """``N × K``; argmax is the answer, softmax its probability."""

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Name of every tensor but the means → its shape; None stands for the width of what it reads of an
        image, −1 for any number."""

    def tensors(self) -> dict[str, Tensor]:
        """What is stored."""
        return {name: value for name, value in self._stored() if isinstance(value, Tensor)}

    def numbers(self) -> dict[str, float]:
        """What is stored beside the tensors."""
        return {name: value for name, value in self._stored() if isinstance(value, float)}

    def _stored(self) -> list[tuple[str, object]]:
        return [(one.name, getattr(self, one.name)) for one in dataclasses.fields(self)]

    def to(self, device: str | torch.device) -> Head:
        """The same on a device."""
        return dataclasses.replace(self, **{name: t.to(device) for name, t in self.tensors().items()})

    def check(self, width: int | None = None) -> None:
        """Refuse what no fit leaves.

        Args:
            width: of what it reads of an image, where it is known.

        Raises:
            ValueError: naming a tensor of another shape, or with numbers that are not finite.
        """
        tensors, shapes = self.tensors(), self.shapes()
        if self.means is not None:
            shapes |= {"means": (len(self.classes), None)}
        for name, shape in shapes.items():
            expected = [width if size is None else size for size in shape]
            value = tensors[name]
            fits = value.ndim == len(shape) and all(
                want in (None, -1) or want == is_ for want, is_ in zip(expected, value.shape, strict=True)
            )
            if not fits:
                raise ValueError(f"'{name}' has shape {tuple(value.shape)}, not {tuple(expected)}")
            if not (value.is_floating_point() and bool(value.isfinite().all())):
                raise ValueError(f"'{name}' holds numbers that are not finite, or no numbers with a fraction")

    @cached_property
    def places(self) -> dict[str, int]:
        """Class name → row."""
        return {name: row for row, name in enumerate(self.classes)}

    def known(self, names: Sequence[str]) -> list[int]:
        """Places among ``names`` of the classes that this head knows."""
        return [k for k, name in enumerate(names) if name in self.places]

    def rows(self, names: Sequence[str]) -> list[int]:
        """Rows of those among ``names`` that it knows, in their order."""
        return [self.places[name] for name in names if name in self.places]


@dataclass(frozen=True, eq=False)
class ClosedHead(Head):
    """A head whose scores mean nothing beside those of texts.

    Where the classes to choose among are not all known to it, the texts say first whether an image shows one
    that is: p = softmax(text logits); where argmax p is known, (1 − share) p + share · own, else p (the rule
    of RAIL, NeurIPS 2024, there with share .8). So images that the texts take for an unlearned class are
    answered as without the head.

    Attributes:
        share: of the head in the answer.
    """

    share: float

    scores_are_logits: ClassVar[bool] = True
    """Whether scores are logits; if not, they are shares already."""

    def reads(self, question: Question) -> Tensor:
        """What the scores are computed from, a row an image."""
        return question.features

    @abstractmethod
    def scores(self, features: Tensor) -> Tensor:
        """``N × classes`` of what it :meth:`reads`."""

    def shares(self, scores: Tensor) -> Tensor:
        """Scores of the classes asked for → what is mixed with probabilities."""
        return scores.softmax(1)

    def logits(self, question: Question) -> Tensor:
        """As in the base class."""
        known = self.known(question.names)
        if not known:
            return question.text_logits
        scores = self.scores(self.reads(question))[:, self.rows(question.names)]
        if self.share == 1.0 and self.scores_are_logits and len(known) == len(question.names):
            return scores
        return texts_first(question, known, self.shares(scores), self.share)


def texts_first(question: Question, known: Sequence[int], shares: Tensor, share: float) -> Tensor:
    """``N × K`` logits, where the texts say first whether an image shows a class that a head knows.

        p = softmax(text logits);   log of (1 − share) p + share · own where argmax p is known, else of p

    Args:
        question: the images and all K classes.
        known: places of the classes that the head knows.
        shares: own, what it gives each of them, ``N × known``.
        share: of the head in the answer.
    """
    text = question.text_logits.softmax(1)
    own = torch.zeros_like(text)
    own[:, known] = shares.to(text)
    is_known = torch.zeros(len(question.names), dtype=torch.bool, device=text.device)
    is_known[known] = True
    mixed = (1 - share) * text + share * own
    answered = torch.where(is_known[text.argmax(1)][:, None], mixed, text)
    # Scores of a regression may be negative. Where all are, moving the row as a whole leaves its order.
    highest, lowest = answered.amax(1, keepdim=True), answered.amin(1, keepdim=True)
    answered = torch.where(highest > 0, answered, answered - lowest)
    return answered.clamp_min(torch.finfo(answered.dtype).tiny).log()


def features_for(classifier: ClipClassifier, images: Tensor, head: Answering | None) -> Tensor:
    """What :func:`answered` needs of a batch of images: their unit features, by both towers where the head
    reads both."""
    return (
        classifier.seen(images) if head is not None and head.reads_both else classifier.image_features(images)
    )


def answered(
    classifier: ClipClassifier, features: Tensor, space: LabelSpace, head: Answering | None
) -> Tensor:
    """``N × K`` logits of what :func:`features_for` gives, from the texts alone where there is no head."""
    if head is None:
        return classifier.head(features, space)
    return head.logits(Question.of(classifier, features, space))
