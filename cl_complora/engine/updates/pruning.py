"""PRILoRA's pruning: entries of A of small importance are set to zero again and again while it is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...clip.slots import Slot
from ...config.factors import Pruning
from ..checkpoint import StepState
from .complora import CompLoRAPlugin
from .step_inputs import StepInputs


class PruningPlugin(StepInputs, StepState, supports_distributed=False):
    """After every so many steps the entries of each row of A that are least by |A_ij|·‖x_j‖ become zero.

    ‖x_j‖ is a running mean over the steps of the length of input feature j over all tokens of a batch; in a
    subspace x is V_cᵀx, the input in A's coordinates.
    """

    def __init__(self, settings: Pruning, adapter: CompLoRAPlugin) -> None:
        super().__init__()
        self.settings, self.adapter = settings, adapter
        self.lengths: dict[str, Tensor] = {}
        self.pruned: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}

    def watched(self) -> Sequence[Slot]:
        """All that have factors."""
        return self.adapter.slots

    def given(self, slot: Slot, x: Tensor) -> None:
        """Add up the squares of a step's inputs, feature by feature."""
        basis = self.adapter.blocks[slot.name].input_basis
        x = x.float() if basis is None else x.float() @ basis
        square = x.flatten(0, -2).square().sum(0)  # also of no direction at all
        before = self._squares.get(slot.name)
        self._squares[slot.name] = square if before is None else before + square

    def before_training_exp(self, strategy, **kwargs) -> None:
        """Another experience, other inputs."""
        super().before_training_exp(strategy, **kwargs)
        self.lengths, self.pruned, self._squares = {}, {}, {}

    @torch.no_grad()
    def after_update(self, strategy, **kwargs) -> None:
        """Take a step that counts into the mean; prune, or keep what was pruned at zero."""
        memory, squares, self._squares = self.settings.memory, self._squares, {}
        for name, square in squares.items() if strategy.counts else ():
            before, now = self.lengths.get(name), square.sqrt()
            self.lengths[name] = now if before is None else memory * before + (1 - memory) * now
        batches = strategy.dataloader
        due = batches.done % self.settings.every == 0
        for name, length in self.lengths.items():
            a = self.adapter.blocks[name].A
            if due:
                self.pruned[name] = least(a.abs() * length.to(a), self.settings.share)
            if due or (name in self.pruned and not self.settings.grow_back):
                a.masked_fill_(self.pruned[name], 0.0)

    def step_state(self) -> dict[str, Tensor]:
        """The running means, and what was pruned last."""
        lengths = {f"length/{name}": length for name, length in self.lengths.items()}
        return lengths | {f"pruned/{name}": pruned for name, pruned in self.pruned.items()}

    def load_step_state(self, tensors: Mapping[str, Tensor]) -> None:
        """As in the base class."""
        for held, kind in ((self.lengths, "length"), (self.pruned, "pruned")):
            for name, block in self.adapter.blocks.items():
                if f"{kind}/{name}" in tensors:
                    held[name] = tensors[f"{kind}/{name}"].to(block.A.device)


def least(importance: Tensor, share: float) -> Tensor:
    """True for the share of every row (rounded down) that is least; the first of equal ones."""
    order = importance.argsort(dim=1, stable=True)[:, : int(share * importance.shape[1])]
    return torch.zeros_like(importance, dtype=torch.bool).scatter_(1, order, True)
