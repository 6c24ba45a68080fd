"""AdaLoRA: singular-value-like factors whose ranks are shared out by importance while a task is trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...clip.slots import Slot
from ...config.factors import Budget
from ...config.penalties import Orthonormal
from ...lowrank import LowRankBlock
from ..adapter import AdapterPlugin
from ..checkpoint import StepState
from ..regularisers import RegulariserPlugin
from .between import Between, Gate


class BudgetPlugin(Between, StepState, supports_distributed=False):
    """AdaLoRA (Zhang et al., ICLR 2023, its code): ΔW = s·B diag(e) A, e from zero.

    After a step every entry p of A, B and e has |p·∂L/∂p|, of which I is the running mean and U that of how
    far it is from I. A rank's importance is I·U of its entry of e plus the means of I·U over its row of A and
    its column of B. Now and then the least important entries of e, of all matrices together, are set to zero
    (see :func:`budget_at`); they may grow back until the final phase, which sets the same to zero after every
    step.

    Attributes:
        bar: importance up to which entries of e were set to zero last.
    """

    def __init__(self, settings: Budget) -> None:
        super().__init__()
        self.settings = settings
        self._parts: dict[str, nn.Parameter] = {}
        self._ranks: list[str] = []
        self.scores: dict[str, tuple[Tensor, Tensor]] = {}
        self.bar: Tensor | None = None

    def of(self, slot: Slot, rank: int) -> nn.Module:
        """e, all zero."""
        return Gate(torch.zeros(rank))

    def begun(self, blocks: Mapping[str, LowRankBlock]) -> None:
        """Nothing is known of their importance."""
        self._ranks = list(blocks)
        self._parts = {}
        for name, block in blocks.items():
            self._parts |= {f"A/{name}": block.A, f"B/{name}": block.B, f"e/{name}": block.between.g}
        self.scores = {key: (torch.zeros_like(p), torch.zeros_like(p)) for key, p in self._parts.items()}

    @torch.no_grad()
    def after_update(self, strategy, **kwargs) -> None:
        """Look at the step, and set to zero what is over budget."""
        if not strategy.counts:
            return
        step, steps = strategy.dataloader.done, len(strategy.dataloader)
        ranks = sum(len(self._parts[f"e/{name}"]) for name in self._ranks)
        budget, chosen, looked = budget_at(self.settings, ranks, step, steps)
        if looked:
            for key, p in self._parts.items():
                if p.grad is not None:
                    self.scores[key] = smoothed(*self.scores[key], (p * p.grad).abs(), *self.settings.betas)
        if chosen and budget < ranks:
            self._keep(budget)

    def _keep(self, budget: int) -> None:
        importance = {name: self.importance(name) for name in self._ranks}
        together = torch.cat(list(importance.values()))
        self.bar = together.kthvalue(len(together) - budget).values
        for name, found in importance.items():
            self._parts[f"e/{name}"].masked_fill_(found <= self.bar, 0.0)

    def importance(self, name: str) -> Tensor:
        """Of every rank of a matrix, ``(r,)``."""
        of_a, of_b, of_e = (torch.mul(*self.scores[f"{kind}/{name}"]) for kind in "ABe")
        return of_e + of_a.mean(1) + of_b.mean(0)

    def step_state(self) -> dict[str, Tensor]:
        """I and U of all entries."""
        return {f"{'IU'[i]}/{key}": pair[i] for key, pair in self.scores.items() for i in range(2)}

    def load_step_state(self, tensors: Mapping[str, Tensor]) -> None:
        """As in the base class."""
        for key, p in self._parts.items():
            self.scores[key] = tuple(tensors[f"{kind}/{key}"].to(p) for kind in "IU")


def smoothed(
    mean: Tensor, variation: Tensor, found: Tensor, beta1: float, beta2: float
) -> tuple[Tensor, Tensor]:
    """(I, U) after another step: I ← β₁I + (1 − β₁)·found, U ← β₂U + (1 − β₂)·|found − I|, with the new I."""
    mean = beta1 * mean + (1 - beta1) * found
    return mean, beta2 * variation + (1 - beta2) * (found - mean).abs()


def budget_at(settings: Budget, ranks: int, step: int, steps: int) -> tuple[int, bool, bool]:
    """(ranks that may be left, whether others are set to zero now, whether the step counts for importance).

    With t₀ steps of warm-up and t₁ final ones, kept + (all − kept)·(1 − (t − t₀)/(T − t₁ − t₀))³ may be left.

    Args:
        settings: of the budget.
        ranks: of all matrices together.
        step: t, from 1.
        steps: T.
    """
    warmup, final = round(settings.warmup * steps), round(settings.final * steps)
    kept = max(1, int(settings.kept * ranks))
    looked = step < steps - final
    if step <= warmup:
        return ranks, False, looked
    if step > steps - final:
        return kept, True, looked
    left = 1 - (step - warmup) / (steps - final - warmup)
    return int(kept + (ranks - kept) * left**3), step % settings.every == 0, looked


class OrthonormalPlugin(RegulariserPlugin, supports_distributed=False):
    """strength · mean over all A and B of ‖A Aᵀ − I‖_F and ‖Bᵀ B − I‖_F, as AdaLoRA's code has it."""

    def __init__(self, settings: Orthonormal, adapter: AdapterPlugin, seed: int) -> None:
        super().__init__()
        self.settings, self.adapter = settings, adapter

    def penalty(self, strategy) -> Tensor:
        """Of the factors as they are trained."""
        factors = self.adapter.trained_factors()
        norms = [from_orthonormal(a) for a in factors[::2]] + [from_orthonormal(b.mT) for b in factors[1::2]]
        return self.settings.strength * torch.stack(norms).mean()


def from_orthonormal(rows: Tensor) -> Tensor:
    """‖M Mᵀ − I‖_F, not squared."""
    square = rows @ rows.mT
    return torch.linalg.matrix_norm(square - torch.eye(len(square)).to(square))
