"""Where low-rank factors start: LoRA's random A, a fixed basis, or singular components (what depends on the
inputs: ``inputs_start``, on gradients: ``gradient_start``)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ....clip.slots import Slot
from ....config.factors import NormalStart
from ....lowrank import Side, Start
from ....subspace import Keep, principal
from ...task_state import CarryingPlugin


class Starting(CarryingPlugin, supports_distributed=False):
    """LoRA's start (Kaiming A, zero B), and the base of the others.

    The adapter calls it; it stands among the plugins only so that what it carries over is stored with the
    run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        """What the user should know about the factors of the present experience."""

    def check(self, slots: Sequence[Slot]) -> None:
        """Find out before any work whether the matrices can start so.

        Raises:
            ValueError: naming one that cannot.
        """

    def look_ahead(self, slots: Sequence[Slot], model: nn.Module, experience) -> None:
        """Look at the coming experience, before factors are attached."""

    def of(
        self, slot: Slot, rank: int, scaling: float, input: Side, output: Side | None = None
    ) -> Start | None:
        """Start of one slot's factors; None for LoRA's."""

    def begun(self) -> None:
        """All factors stand: let go of what was looked at for them, which may be as large as the weights."""

    def look_back(self, slots: Sequence[Slot], model: nn.Module, experience) -> None:
        """Look back on the experience, after its update was merged."""


class NormalStarting(Starting, supports_distributed=False):
    """A and B from normal distributions."""

    def __init__(self, settings: NormalStart) -> None:
        super().__init__()
        self.settings = settings

    def of(self, slot: Slot, rank: int, scaling: float, input: Side, output: Side | None = None) -> Start:
        """The deviations; the block draws."""
        return Start(a_deviation=self.settings.a or 1.0 / rank, b_deviation=self.settings.b)


class CoreStarting(Starting, supports_distributed=False):
    """NuSA-CL (arXiv 2510.21175): A is the input basis itself and fixed, so that ΔW = s·U M Vᵀ with M = B
    trained."""

    def of(self, slot: Slot, rank: int, scaling: float, input: Side, output: Side | None = None) -> Start:
        """The identity in the coordinates of the input side."""
        return Start(a=torch.eye(input.basis.shape[1]), train_a=False)


class ComponentsStarting(Starting, supports_distributed=False):
    """s·B A starts as the r components of smallest singular value (MiLoRA, arXiv 2406.09044) or of largest
    (PiSSA, arXiv 2404.02948), both factors √(σ/s).

    Both move those components out of the frozen weight; here the weight stays and they are taken off the
    update, which computes the same. Nothing confines the update afterwards.
    """

    def __init__(self, largest: bool = False) -> None:
        super().__init__()
        self.largest = largest

    def of(self, slot: Slot, rank: int, scaling: float, input: Side, output: Side | None = None) -> Start:
        """The last or first min(rank, min(out, in)) singular components."""
        split = principal(slot.weight, Keep("number", 0))
        full = len(split.sigma)
        rank = min(rank, full)
        chosen = slice(rank) if self.largest else slice(full - rank, full)
        root = (split.sigma[chosen] / scaling).sqrt().to(slot.weight.dtype)
        b, a = split.u[:, chosen] * root, root[:, None] * split.v[:, chosen].mT
        return Start(a=a.cpu(), b=b.cpu())
