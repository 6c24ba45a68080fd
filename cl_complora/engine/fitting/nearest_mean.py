"""Class means of unit image features."""

from __future__ import annotations

from torch import Tensor

from ...clip.heads.linear import MeanHead
from .fitting import Fitted, FittingToAll, Shots, class_means


class NearestMeanFitting(FittingToAll, supports_distributed=False):
    """m_k = normalise(mean of the class's unit features)."""

    def fit_to(self, names: tuple[str, ...], features: Tensor, labels: Tensor, shots: Shots) -> Fitted:
        """As in the base class."""
        means = class_means(features, labels, len(names))
        return Fitted(MeanHead(names, 1.0, means, shots.scale), means.numel())
