"""Class means of unit image features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...clip.heads.linear import MeanHead
from .fitting import Fitted, FittingToAll, Shots


class NearestMeanFitting(FittingToAll, supports_distributed=False):
    """m_k = normalise(mean of the class's unit features)."""

    def fit_to(self, names: tuple[str, ...], features: Tensor, labels: Tensor, shots: Shots) -> Fitted:
        """As in the base class."""
        means = class_means(features, labels, len(names))
        return Fitted(MeanHead(names, 1.0, means, shots.scale), means.numel())


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """``classes × D`` unit rows."""
    sums = torch.zeros(classes, features.shape[1], dtype=torch.float64, device=features.device)
    sums.index_add_(0, labels, features.double())
    return F.normalize(sums, dim=-1).float()
