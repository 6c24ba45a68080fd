"""Heads that are a regression on one-hot labels: on random features, or on a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .head import ClosedHead

_MIXED = (
    "((1 - share) * (model.logit_scale.exp() * image @ text.T).softmax(-1)"
    " + share * {own}).clamp_min(1e-30).log()"
)


class RegressionHead(ClosedHead):
    """A regression on one-hot labels, which gives something like probabilities itself."""

    scores_are_logits: ClassVar[bool] = False

    def shares(self, scores: Tensor) -> Tensor:
        """As they are."""
        return scores


@dataclass(frozen=True, eq=False)
class RandomFeatureHead(RegressionHead):
    """Scores relu(f Pᵀ) W.

    Attributes:
        projection: P, ``H × D``, fixed.
        weight: ``H × classes``.
    """

    projection: Tensor
    weight: Tensor

    kind: ClassVar[str] = "random-features"
    formula: ClassVar[str] = _MIXED.format(own="(F.relu(image @ projection.T) @ weight)")

    def scores(self, features: Tensor) -> Tensor:
        """As in the base class."""
        return random_features(features, self.projection) @ self.weight

    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """As in the base class."""
        hidden = len(self.projection)
        return {"projection": (hidden, None), "weight": (hidden, len(self.classes))}


@dataclass(frozen=True, eq=False)
class KernelHead(RegressionHead):
    """Scores Σ_n exp(−γ‖f − key_n‖²) weight_n.

    Attributes:
        gamma: γ.
        keys: ``N × D`` features of the shots.
        weight: ``N × classes``.
    """

    gamma: float
    keys: Tensor
    weight: Tensor

    kind: ClassVar[str] = "kernel"
    formula: ClassVar[str] = _MIXED.format(own="((-gamma * torch.cdist(image, keys) ** 2).exp() @ weight)")

    def scores(self, features: Tensor) -> Tensor:
        """As in the base class."""
        return kernel(features, self.keys, self.gamma) @ self.weight

    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """As in the base class."""
        count = len(self.keys)
        return {"keys": (count, None), "weight": (count, len(self.classes))}


def random_features(features: Tensor, projection: Tensor) -> Tensor:
    """relu(f Pᵀ), ``N × H``."""
    return torch.relu(features @ projection.mT)


def kernel(left: Tensor, right: Tensor, gamma: float) -> Tensor:
    """exp(−γ‖l − r‖²) of every pair of rows."""
    squares = left.square().sum(1)[:, None] + right.square().sum(1)[None] - 2 * left @ right.mT
    return (-gamma * squares.clamp_min(0)).exp()
