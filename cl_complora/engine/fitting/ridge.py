"""RAIL's regression (Xu et al., Advancing cross-domain discriminability in continual learning, NeurIPS 2024).

The authors update an inverse task by task; the regression to the kept features of all shots is the same
solution, and stays so however long the stream is.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...clip.heads.head import ClosedHead
from ...clip.heads.regression import KernelHead, RandomFeatureHead, kernel, random_features
from ..constraints import stable_seed
from .fitting import Fitted, FittingToAll, Shots


class RidgeFitting(FittingToAll, supports_distributed=False):
    """min ‖Φ W − Y‖² + λ‖W‖² with one-hot Y, in 64 bits."""

    def fit_to(self, names: tuple[str, ...], features: Tensor, labels: Tensor, shots: Shots) -> Fitted:
        """As in the base class."""
        head = self._forms[self.settings.form](self, names, features, labels)
        return Fitted(head, head.weight.numel())

    def _primal(self, names: tuple[str, ...], features: Tensor, labels: Tensor) -> ClosedHead:
        # The same projection for every task of a run.
        generator = torch.Generator().manual_seed(stable_seed(self.seed, "projection"))
        width = features.shape[1]
        drawn = torch.rand(self.settings.hidden, width, generator=generator) * 2 - 1
        projection = (drawn / width**0.5).to(features)
        hidden = random_features(features.double(), projection.double())
        weight = ridge(hidden, F.one_hot(labels, len(names)), self.settings.strength)
        return RandomFeatureHead(names, self.settings.share, projection, weight.float())

    def _dual(self, names: tuple[str, ...], features: Tensor, labels: Tensor) -> ClosedHead:
        exact = features.double()
        similar = kernel(exact, exact, self.settings.gamma)
        targets = F.one_hot(labels, len(names)).double()
        weight = _solved(similar, self.settings.strength, targets)
        return KernelHead(names, self.settings.share, self.settings.gamma, features, weight.float())

    _forms = {"primal": _primal, "dual": _dual}


def ridge(hidden: Tensor, targets: Tensor, strength: float) -> Tensor:
    """(ΦᵀΦ + λI)⁻¹ΦᵀY = Φᵀ(ΦΦᵀ + λI)⁻¹Y, the smaller of both systems.

    Args:
        hidden: Φ, ``N × H``.
        targets: Y, ``N × K``.
        strength: λ.

    Returns:
        ``H × K``.
    """
    targets = targets.to(hidden)
    if len(hidden) < hidden.shape[1]:
        return hidden.mT @ _solved(hidden @ hidden.mT, strength, targets)
    return _solved(hidden.mT @ hidden, strength, hidden.mT @ targets)


def _solved(gram: Tensor, strength: float, right: Tensor) -> Tensor:
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.cholesky_solve(right, torch.linalg.cholesky(gram + strength * eye))
