"""Carrying kept features over to towers that have moved on since."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def drift_of(before: Tensor, now: Tensor, strength: float) -> Callable[[Tensor], Tensor]:
    """How features from before a task are to be moved to where its towers would put them.

    M = argmin ‖F' − F − F M‖² + λ‖M‖² = (Fᵀ F + λ I)⁻¹ Fᵀ (F' − F), and f becomes the unit vector of f + f M:
    learnable drift compensation (Gomez-Villa et al., ECCV 2024, arXiv 2407.08536) with a linear map that is
    solved for in place of one that is trained. Where the towers did not move, M is 0. What stands beside f,
    of a tower that stays, is left as it is.

    Args:
        before: F, unit features of the task's images before it, ``N × D``.
        now: F', of the same images after it.
        strength: λ; the larger, the nearer M is to 0. Computed on the CPU in 64 bits.
    """
    f, moved = before.double().cpu(), now.double().cpu() - before.double().cpu()
    eye = torch.eye(f.shape[1], dtype=f.dtype)
    m = torch.linalg.solve(f.mT @ f + strength * eye, f.mT @ moved)

    def carried(features: Tensor) -> Tensor:
        own, untouched = features[:, : len(m)].double().cpu(), features[:, len(m) :]
        return torch.cat([F.normalize(own + own @ m, dim=-1).to(features), untouched], 1)

    return carried
