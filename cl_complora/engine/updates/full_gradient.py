"""LoRA-Pro: steps of both factors that together come as near to a step of the whole matrix as their rank
allows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor

from ..checkpoint import StepState
from .complora import CompLoRAPlugin

# What the authors' code adds to the Gram matrices before it inverts them, and to Adam's root.
SMALL = 1e-8


class FullGradientPlugin(SupervisedPlugin, StepState, supports_distributed=False):
    """LoRA-Pro (Wang et al., ICLR 2025, its code): Adam of the update as a whole, solved for the factors.

    With ĝ_A, ĝ_B the gradients of a step, E = s·B g_A + s·g_B A is the part of the matrix's gradient that
    factors can follow (see :func:`adjusted`). Adam's moments are those of E, ``out × in``; its direction g
    gives s·Bᵀg and s·gAᵀ in place of the gradients, and these, adjusted again, are what plain gradient
    descent takes away.

    Args:
        betas: of Adam.
        adapter: whose factors.

    Attributes:
        step: of the experience; bias is corrected with it (the authors' code is one ahead).
    """

    def __init__(self, betas: tuple[float, float], adapter: CompLoRAPlugin) -> None:
        super().__init__()
        self.betas, self.adapter, self.step = betas, adapter, 0
        self.moments: dict[str, tuple[Tensor, Tensor]] = {}

    def before_training_exp(self, strategy, **kwargs) -> None:
        """New factors, new moments."""
        self.step = 0
        self.moments = {
            name: (block.B.new_zeros(len(block.B), block.A.shape[1]),) * 2
            for name, block in self.adapter.blocks.items()
        }

    @torch.no_grad()
    def before_update(self, strategy, **kwargs) -> None:
        """Directions in place of gradients."""
        if not strategy.counts:
            return
        self.step += 1
        for name, block in self.adapter.blocks.items():
            s, a, b = block.scaling, block.A, block.B
            if a.grad is None or b.grad is None:
                continue
            g_a, g_b, _ = adjusted(a, b, a.grad, b.grad, s, mixed=False)
            g = self._adam(name, s * (b @ g_a + g_b @ a))
            a.grad, b.grad, _ = adjusted(a, b, s * b.mT @ g, s * g @ a.mT, s)

    def _adam(self, name: str, gradient: Tensor) -> Tensor:
        first, second = self.betas
        mean, square = self.moments[name]
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient.square()
        self.moments[name] = (mean, square)
        return (mean / (1 - first**self.step)) / ((square / (1 - second**self.step)).sqrt() + SMALL)

    def step_state(self) -> dict[str, Tensor]:
        """The moments and the step."""
        kinds = {f"{i}/{name}": pair[i] for name, pair in self.moments.items() for i in range(2)}
        return kinds | {"step": torch.tensor(self.step)}

    def load_step_state(self, tensors: Mapping[str, Tensor]) -> None:
        """As in the base class."""
        self.step = int(tensors["step"])
        for name, (mean, _) in list(self.moments.items()):
            self.moments[name] = tuple(tensors[f"{i}/{name}"].to(mean) for i in range(2))


def adjusted(
    a: Tensor, b: Tensor, grad_a: Tensor, grad_b: Tensor, s: float, mixed: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """(g_A, g_B, X) whose joint change s·B g_A + s·g_B A is the matrix's gradient, projected on what factors
    can do.

        g_A = s⁻²(BᵀB)⁻¹ĝ_A + X A,   g_B = s⁻²(I − B(BᵀB)⁻¹Bᵀ)ĝ_B(AAᵀ)⁻¹ − B X
        BᵀB·X + X·AAᵀ = −s⁻²(BᵀB)⁻¹ĝ_A Aᵀ

    The change is the same for every X; this one keeps both nearest to ĝ_A and ĝ_B.

    Args:
        a, b: ``r × in`` and ``out × r``.
        grad_a, grad_b: ĝ_A, ĝ_B.
        s: scaling.
        mixed: whether X is solved for; zero otherwise.
    """
    eye = SMALL * torch.eye(len(a), dtype=a.dtype, device=a.device)
    left, right = b.mT @ b, a @ a.mT
    left_inverse, right_inverse = torch.linalg.pinv(left + eye), torch.linalg.pinv(right + eye)
    of_a = left_inverse @ grad_a / s**2
    of_b = (grad_b - b @ (left_inverse @ (b.mT @ grad_b))) @ right_inverse / s**2
    if not mixed:
        return of_a, of_b, torch.zeros_like(left)
    x = sylvester(left, right, -of_a @ a.mT)
    return of_a + x @ a, of_b - b @ x, x


def sylvester(left: Tensor, right: Tensor, target: Tensor) -> Tensor:
    """X with left·X + X·right = target for symmetric matrices; zero where both have a zero eigenvalue."""
    (p, u), (q, v) = torch.linalg.eigh(left), torch.linalg.eigh(right)
    total = p[:, None] + q
    solved = torch.where(total.abs() > 0, (u.mT @ target @ v) / total, torch.zeros_like(total))
    return u @ solved @ v.mT
