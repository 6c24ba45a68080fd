"""XGBLoRA: low-rank factors that are merged and begun anew several times within a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...clip.slots import Slot
from ...config.factors import Boosters
from ...lowrank import LowRankBlock, kaiming
from ..checkpoint import StepState
from ..constraints import stable_seed
from .between import Between


class Boosted(nn.Module):
    """(s·B, A) → the factors of all boosters until now side by side, of which the last alone is trained.

    Attributes:
        held: factors of finished boosters, ``out × n`` and ``n × in``; None for none.
        active: whether the present booster adapts the matrix; its B is zero otherwise and stays it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: tuple[Tensor, Tensor] | None = None
        self.active = True

    def forward(self, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """``out × r``, ``r × in`` → ``out × (n + r)``, ``(n + r) × in``, less r where not active."""
        if not self.active:
            return self.held or (b.detach(), a.detach())
        if self.held is None:
            return b, a
        return torch.cat([self.held[0], b], 1), torch.cat([self.held[1], a])


class BoostersPlugin(Between, StepState, supports_distributed=False):
    """XGBLoRA (arXiv 2410.19694): W ← W + s·B A every κ steps, then another A, B = 0, and an optimiser that
    remembers nothing.

    What boosters added is held beside the weight until the end of the task (the same function), so a task's
    update stays of low rank and can be taken out again. In a subspace all boosters of a task have the same
    bases.
    """

    def __init__(self, settings: Boosters, seed: int) -> None:
        super().__init__()
        self.settings, self.seed = settings, seed
        self._blocks: dict[str, LowRankBlock] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._task = self._booster = 0

    def begin(self, slots: Sequence[Slot], task: int) -> None:
        """The first booster of a task."""
        self._task, self._booster = task, 0
        self._places = {slot.name: (slot.tower, slot.layer) for slot in slots}

    def of(self, slot: Slot, rank: int) -> nn.Module:
        """Nothing is held yet."""
        return Boosted()

    def begun(self, blocks: Mapping[str, LowRankBlock]) -> None:
        """Say which blocks it adapts."""
        self._blocks = dict(blocks)
        self._choose()

    @torch.no_grad()
    def after_update(self, strategy, **kwargs) -> None:
        """Every κ steps, but not after the last step, the next booster."""
        batches = strategy.dataloader
        if batches.done % self.settings.steps or batches.done == len(batches):
            return
        self._booster += 1
        for name, block in self._blocks.items():
            if block.between.active:
                block.between.held = tuple(factor.detach().clone() for factor in block.factors())
            block.A.copy_(self.first(name, block))
            block.B.zero_()
            for p in block.parameters():
                strategy.optimizer.state.pop(p, None)
        self._choose()

    def first(self, name: str, block: LowRankBlock) -> Tensor:
        """Where A of the present booster starts."""
        seed = stable_seed(self.seed, self._task, name, f"booster {self._booster}")
        return kaiming(*block.A.shape, torch.Generator().manual_seed(seed))

    def chosen(self) -> set[tuple[str, int]]:
        """(tower, block) that the present booster adapts."""
        places = sorted(set(self._places.values()))
        seed = stable_seed(self.seed, self._task, "boosters", str(self._booster))
        order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed)).tolist()
        return {places[i] for i in order[: max(1, round(self.settings.share * len(places)))]}

    def _choose(self) -> None:
        chosen = self.chosen()
        for name, block in self._blocks.items():
            block.between.active = self._places[name] in chosen

    def step_state(self) -> dict[str, Tensor]:
        """Which booster it is, and what those before it added."""
        held = {name: block.between.held for name, block in self._blocks.items()}
        factors = {f"{'BA'[i]}/{name}": pair[i] for name, pair in held.items() if pair for i in range(2)}
        return factors | {"booster": torch.tensor(self._booster)}

    def load_step_state(self, tensors: Mapping[str, Tensor]) -> None:
        """As in the base class."""
        self._booster = int(tensors["booster"])
        for name, block in self._blocks.items():
            if f"B/{name}" in tensors:
                block.between.held = tuple(tensors[f"{kind}/{name}"].to(block.A) for kind in "BA")
        self._choose()
