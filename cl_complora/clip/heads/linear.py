"""Heads that are one linear map of unit image features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from .head import ClosedHead, Head, Question


@dataclass(frozen=True, eq=False)
class AffineHead(ClosedHead):
    """Logits f Wᵀ + b, as a logistic regression has them.

    Attributes:
        weight: ``classes × D``.
        bias: ``(classes,)``.
    """

    weight: Tensor
    bias: Tensor

    kind: ClassVar[str] = "affine"
    formula: ClassVar[str] = "image @ weight.T + bias"

    def scores(self, features: Tensor) -> Tensor:
        """As in the base class."""
        return features @ self.weight.mT + self.bias

    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """As in the base class."""
        return {"weight": (len(self.classes), None), "bias": (len(self.classes),)}


@dataclass(frozen=True, eq=False)
class PairedHead(AffineHead):
    """Logits (f, f₀) Wᵀ + b of the model's features and, beside them, the untouched tower's.

    Attributes:
        weight: ``classes × 2 D``.
        bias: ``(classes,)``.
    """

    kind: ClassVar[str] = "affine-paired"
    formula: ClassVar[str] = "torch.cat([image, untouched], -1) @ weight.T + bias"
    reads_both: ClassVar[bool] = True

    def reads(self, question: Question) -> Tensor:
        """As in the base class."""
        return question.seen(both=True)

    def check(self, width: int | None = None) -> None:
        """As in the base class, of features of either tower."""
        super().check(None if width is None else 2 * width)


@dataclass(frozen=True, eq=False)
class MeanHead(ClosedHead):
    """Logits τ f·m_k with unit class means: nearest in angle.

    Attributes:
        weight: ``classes × D`` unit rows.
        scale: τ.
    """

    weight: Tensor
    scale: float

    kind: ClassVar[str] = "mean"
    formula: ClassVar[str] = "scale * image @ weight.T"

    def scores(self, features: Tensor) -> Tensor:
        """As in the base class."""
        return self.scale * features @ self.weight.mT

    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """As in the base class."""
        return {"weight": (len(self.classes), None)}


@dataclass(frozen=True, eq=False)
class RowHead(Head):
    """Logits τ f·row: a text head whose known classes have rows of their own instead of their texts.

    Attributes:
        weight: ``classes × D``; made unit rows here, as at every step of their training.
    """

    weight: Tensor

    kind: ClassVar[str] = "rows"
    formula: ClassVar[str] = "model.logit_scale.exp() * image @ F.normalize(weight, dim=-1).T"

    def logits(self, question: Question) -> Tensor:
        """As in the base class."""
        known = self.known(question.names)
        if not known:
            return question.text_logits
        rows = question.texts.clone()
        rows[known] = F.normalize(self.weight[self.rows(question.names)], dim=-1)
        return question.scale * question.features @ rows.mT

    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """As in the base class."""
        return {"weight": (len(self.classes), None)}
