"""Muon with its orthogonalisation in float32 and over matrices of one shape at a time.

``torch.optim.Muon`` iterates in bfloat16 and matrix by matrix: ten times slower on CPUs without fast
bfloat16, and many small launches on a GPU. The step is the same:

    m ← β m + (1 − β) g,   u = NS₅((1 − β) g + β m),   W ← W (1 − η λ) − η · 0.2 √max(rows, columns) · u

NS₅ is the quintic Newton–Schulz iteration of Jordan et al. (Muon, 2024); the scale (Liu et al., arXiv
2502.16982) gives an update the root mean square of AdamW's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalised(update: Tensor, steps: int = 5) -> Tensor:
    """Nearly the closest matrix with orthonormal rows or columns: ``U Vᵀ`` of ``U S Vᵀ``, singular values
    about 1.

    Args:
        update: matrices, … × rows × columns.
        steps: Newton–Schulz iterations.
    """
    a, b, c = _COEFFICIENTS
    tall = update.shape[-2] > update.shape[-1]
    x = update.mT if tall else update
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, for hidden matrices.

    Args:
        params: matrices.
        lr: learning rate η.
        momentum: β.
        weight_decay: λ.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.1
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One step of every matrix that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for shape, matrices in shapes.items():
                gradients = [p.grad for p in matrices]
                moments = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in matrices]
                torch._foreach_lerp_(moments, gradients, 1 - group["momentum"])
                ahead = torch._foreach_lerp(gradients, moments, group["momentum"])
                turned = orthogonalised(torch.stack(ahead))
                scale = group["lr"] * 0.2 * math.sqrt(max(shape))
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(matrices, list(turned.unbind()), alpha=-scale)
