"""Tip-Adapter: the texts' logits, and beside them what similar shots were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .head import Head, Question, texts_first


@dataclass(frozen=True, eq=False)
class CacheHead(Head):
    """Logits τ f·t + α exp(−β(1 − f·keyᵀ)) V.

    What the keys add is never negative and as large as α allows, so a class that has none could hardly be
    answered beside those that have. Where the classes to choose among are not all known, the texts say first
    whether an image shows one that is, and the keys add to the answer among these, as in
    :class:`~.head.ClosedHead`. (In the authors' program every class has keys.)

    Attributes:
        alpha, beta: α and β.
        keys: ``N × D``, one for every shot.
        values: V, ``N × classes``, one-hot labels.
    """

    alpha: float
    beta: float
    keys: Tensor
    values: Tensor

    kind: ClassVar[str] = "cache"
    formula: ClassVar[str] = (
        "model.logit_scale.exp() * image @ text.T + alpha * (-beta * (1 - image @ keys.T)).exp() @ values"
    )

    def logits(self, question: Question) -> Tensor:
        """As in the base class."""
        known = self.known(question.names)
        if not known:
            return question.text_logits
        similar = similarity(question.features, self.keys, self.beta)
        added = self.alpha * similar @ self.values[:, self.rows(question.names)]
        if len(known) == len(question.names):
            return question.text_logits + added
        own = (question.text_logits[:, known] + added).softmax(1)
        return texts_first(question, known, own, share=1.0)

    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """As in the base class."""
        count = len(self.keys)
        return {"keys": (count, None), "values": (count, len(self.classes))}


def similarity(features: Tensor, keys: Tensor, beta: float) -> Tensor:
    """exp(−β(1 − f·keyᵀ)), ``N × keys``."""
    return (-beta * (1 - features @ keys.mT)).exp()
