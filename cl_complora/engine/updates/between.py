"""What stands between the factors of a low-rank update, ΔW = s·B · … · A."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...clip.slots import Slot
from ...config.factors import Gates
from ...lowrank import LowRankBlock
from ..constraints import stable_seed
from ..task_state import CarryingPlugin


class Between(CarryingPlugin, supports_distributed=False):
    """Nothing, and the base of the others; the adapter calls it.

    It stands among the plugins so that what it carries over is stored with the run.
    """

    def check(self, slots: Sequence[Slot]) -> None:
        """Find out before any work whether the matrices can be adapted so.

        Raises:
            ValueError: naming one that cannot.
        """

    def look_ahead(self, slots: Sequence[Slot], model: nn.Module, experience) -> None:
        """Look at the coming experience, before factors are attached."""

    def begin(self, slots: Sequence[Slot], task: int) -> None:
        """Before the factors of an experience are made."""

    def begun(self, blocks: Mapping[str, LowRankBlock]) -> None:
        """After they were made; slot name → block."""

    def of(self, slot: Slot, rank: int) -> nn.Module | None:
        """What one slot's block composes its factors with, (s·B′, A′) → (s·B′, A′)."""

    def learned(self, slot: Slot, block: LowRankBlock) -> None:
        """Look at a trained block before it is merged."""


class Gate(nn.Module):
    """B diag(g) A with a trained g.

    Args:
        start: ``(r,)``.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.g = nn.Parameter(start)

    def forward(self, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """``out × r``, ``r × in`` → the same shapes."""
        return b * self.g, a


class GatesPlugin(Between, supports_distributed=False):
    """CoDyRA's gates (EMNLP Findings 2026, its code): y = W x + s·B (g ⊙ A x), g from N(0, 1).

    From a share of the steps on, gates are pulled to zero after every step by a threshold κ that grows (see
    :func:`threshold` and :func:`shrunk`). A gate at zero can leave it again.
    """

    def __init__(self, settings: Gates, seed: int) -> None:
        super().__init__()
        self.settings, self.seed = settings, seed
        self._gates: list[Gate] = []
        self._task = 0

    def begin(self, slots: Sequence[Slot], task: int) -> None:
        """Gates are drawn anew."""
        self._gates, self._task = [], task

    def of(self, slot: Slot, rank: int) -> nn.Module:
        """Gates from N(0, 1), drawn apart from A, which starts as LoRA's."""
        generator = torch.Generator().manual_seed(stable_seed(self.seed, self._task, slot.name, "gates"))
        gate = Gate(torch.randn(rank, generator=generator))
        self._gates.append(gate)
        return gate

    @torch.no_grad()
    def after_update(self, strategy, **kwargs) -> None:
        """Shrink."""
        if not strategy.counts:
            return
        batches = strategy.dataloader
        kappa = threshold(self.settings, batches.done - 1, len(batches))
        if kappa > 0:
            for gate in self._gates:
                gate.g.copy_(shrunk(gate.g, kappa))


def threshold(settings: Gates, step: int, steps: int) -> float:
    """κ applied after ``step`` (from 0) of ``steps``: 0, and from the first step after the dense share on one
    of ``levels`` values from 0 to the largest, which grow evenly over the rest (where that is long enough for
    all of them)."""
    begin = settings.dense * steps
    if step <= begin:
        return 0.0
    every = max(1, int((steps - begin) / settings.levels))
    # Counting begins with the first step that is not before ``begin``, which itself shrinks nothing.
    level = 1 + (step - math.ceil(begin)) // every
    return settings.threshold * min(level, settings.levels - 1) / (settings.levels - 1)


def shrunk(g: Tensor, kappa: float) -> Tensor:
    """g − κ above κ, g + κ below −κ, and then 0 where |g| < κ, so that all within 2κ vanishes.

    That is what the authors' code does; the proximal step of κ|g|, as which it is described, would keep what
    is beyond κ.
    """
    g = torch.where(g > kappa, g - kappa, torch.where(g < -kappa, g + kappa, g))
    return torch.where(g.abs() < kappa, torch.zeros_like(g), g)
