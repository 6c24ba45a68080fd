"""Muon: momentum steps of which every matrix is made (nearly) orthogonal before it is taken.

    M ← μ M + (1 − μ) G;   N = (1 − μ) G + μ M;   W ← (1 − ηλ) W − η s(W) · orthogonalised(N)

with G the gradient, η the rate, λ the weight decay and s(W) the scale by shape of :data:`SCALES` (Jordan et
al. 2024; the arithmetic is that of ``torch.optim.Muon``). PyTorch's own iterates in bfloat16 everywhere,
which a CPU without fast bfloat16 does ten times slower than in 32 bits; here a CPU iterates in 32 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# Jordan's quintic: steepest at zero, with the singular values ending between about 0.7 and 1.2.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_TINY = 1e-7

# s(W) for a matrix of so many rows and columns. ``match_rms_adamw`` gives a step the root mean square of an
# AdamW step (Liu et al., arXiv 2502.16982), so that AdamW's rates carry over.
SCALES: dict[str, Callable[[int, int], float]] = {
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
    "original": lambda rows, columns: math.sqrt(max(1.0, rows / columns)),
}


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """U S Vᵀ of a matrix U Σ Vᵀ with every singular value in S near 1, by Newton–Schulz.

        X ← a X + (b X Xᵀ + c (X Xᵀ)²) X,   from X = matrix / ‖matrix‖_F

    Args:
        matrix: ``m × n``; a matrix of zeros stays one.
        steps: of the iteration.

    Returns:
        ``m × n``, computed in bfloat16 on a GPU and in 32 bits everywhere else.
    """
    a, b, c = _QUINTIC
    x = matrix.to(torch.bfloat16 if matrix.device.type == "cuda" else torch.float32)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.mT
    x = x / torch.linalg.matrix_norm(x).clamp(min=_TINY)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


class Muon(Optimizer):
    """Muon over matrices; vectors, embeddings and output layers need another optimiser beside it.

    Args:
        params: parameters of two axes, or groups of them.
        lr: η.
        momentum: μ, in Nesterov's form.
        weight_decay: λ, decoupled.
        adjust: a key of :data:`SCALES`.

    Raises:
        ValueError: for a parameter that is no matrix.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        adjust: str = "match_rms_adamw",
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "adjust": adjust}
        )
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim != 2:
                    raise ValueError(f"Muon moves matrices only, got a parameter of shape {tuple(p.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            scale, momentum = SCALES[group["adjust"]], group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                held = self.state[p]
                if not held:
                    held["momentum_buffer"] = torch.zeros_like(p.grad)
                average = held["momentum_buffer"].lerp_(p.grad, 1 - momentum)
                step = orthogonalised(p.grad.lerp(average, momentum))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(step.to(p.dtype), alpha=-group["lr"] * scale(*p.shape))
        return loss
