"""KeepLoRA: low-rank factors that start in, and keep to, where the coming task's gradient points outside what
is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ....clip.slots import Slot
from ....config.factors import GradientStart
from ....lowrank import Side, Start
from ....subspace import Keep, principal
from ..gradients import mean_gradients
from ..input_directions import grown, input_covariances, outside, summed_inputs
from .initialisation import Starting


class GradientStarting(Starting, supports_distributed=False):
    """KeepLoRA (ICLR 2026, its code): A is fixed to the leading directions of the gradient outside P.

    With G = ∂ cross-entropy/∂W (``out × in``) over the task and P a basis of what is kept, (I − P Pᵀ) Gᵀ = U
    S Vᵀ,

        A = U_rᵀ,   B from V_r S_r (taken off the weight again, so that the start is W) or from zero, trained

    P begins as the principal directions of the pretrained weight and grows, after every task, by those that
    hold ``kept`` of its inputs X.
    """

    def __init__(self, settings: GradientStart) -> None:
        super().__init__()
        self.settings = settings
        self.kept: dict[str, Tensor] = {}
        self._gradients: dict[str, Tensor] = {}

    def check(self, slots: Sequence[Slot]) -> None:
        """The published side needs square matrices."""
        for slot in slots:
            out, width = slot.weight.shape
            if self.settings.side == "published" and out != width:
                raise ValueError(
                    f"start.side: published keeps output directions from the inputs, which needs square "
                    f"matrices; {slot.name} is {out} × {width}. side: input works with all"
                )

    def look_ahead(self, slots: Sequence[Slot], model: nn.Module, experience) -> None:
        """The gradient of the coming experience; before the first one also what is kept of the pretrained
        weights."""
        if not self.kept:
            for slot in slots:
                energy = self.settings.energy.text if slot.tower == "text" else self.settings.energy.vision
                self.kept[slot.name] = principal_directions(slot.weight, energy, self.settings.side)
        self._gradients = mean_gradients(slots, model, experience, self.settings.batch_size)
        self.notes = []

    def begun(self) -> None:
        """As in the base class."""
        self._gradients = {}

    def of(self, slot: Slot, rank: int, scaling: float, input: Side, output: Side | None = None) -> Start:
        """The leading directions; fewer than the rank where no more are free."""
        basis = self.kept[slot.name]
        free = slot.weight.shape[1] - basis.shape[1]
        if free < rank:
            self.notes.append(
                f"{slot.name}: what is kept leaves {free} of {slot.weight.shape[1]} input directions free, "
                f"so {free} are trained instead of {rank}; lower adapter.start.kept or adapter.start.energy"
            )
        b, a = from_gradient(self._gradients[slot.name], basis, max(1, min(rank, free)))
        first = b.to(slot.weight.dtype).cpu() if self.settings.values == "gradient" else None
        return Start(a=a.to(slot.weight.dtype).cpu(), b=first, train_a=False)

    def look_back(self, slots: Sequence[Slot], model: nn.Module, experience) -> None:
        """Keep the directions of this experience's inputs as well."""
        if self.settings.features == "summed":
            squares = summed_inputs(slots, model, experience, self.settings.batch_size)
        else:
            squares = input_covariances(slots, model, experience, None)
        for name, square in squares.items():
            # A root of X Xᵀ has X's left singular vectors and values.
            self.kept[name] = grown(self.kept[name], root(square), self.settings.kept)

    def tensors(self) -> dict[str, Tensor]:
        """The bases P."""
        return dict(self.kept)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take them back."""
        self.kept = dict(tensors)


def principal_directions(weight: Tensor, energy: float, side: str) -> Tensor:
    """``in × k`` with k = #{i: Σ_{j≤i} σⱼ² < energy · ‖W‖²}, at least 1.

    Args:
        weight: ``out × in``.
        energy: share.
        side: ``input`` for the right singular vectors, ``published`` for the left ones.
    """
    split = principal(weight, Keep("number", 0))
    squares = split.sigma.double().square()
    k = max(1, int((squares.cumsum(0) < energy * squares.sum()).sum()))
    return (split.v if side == "input" else split.u)[:, :k].contiguous()


def from_gradient(gradient: Tensor, basis: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(B, A) with B A = the best approximation of G (I − P Pᵀ) of a rank.

    Args:
        gradient: G, ``out × in``.
        basis: of P, ``in × k``.
        rank: r.

    Returns:
        ``out × r`` and ``r × in``, A with orthonormal rows that are exactly zero on P.
    """
    u, sigma, vh = torch.linalg.svd(outside(basis, gradient.double().mT), full_matrices=False)
    a = outside(basis, u[:, :rank]).mT
    return vh[:rank].mT * sigma[:rank], a


def root(square: Tensor) -> Tensor:
    """A matrix Y with Y Yᵀ = X Xᵀ."""
    values, vectors = torch.linalg.eigh(square)
    return vectors.flip(1) * values.flip(0).clamp_min(0).sqrt()
