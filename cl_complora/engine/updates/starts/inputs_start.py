"""InfLoRA: low-rank factors that start in, and keep to, what only the coming task's inputs use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ....clip.classifier import ClipClassifier
from ....clip.slots import Slot
from ....config.factors import InputsStart
from ....data.tasks import StreamData
from ....errors import UserError
from ....lowrank import Side, Start
from ..input_directions import directions_missing, extended, grown, input_covariances, outside
from .initialisation import Starting


class InputsStarting(Starting, supports_distributed=False):
    """InfLoRA (Liang & Li, CVPR 2024, arXiv 2404.00228): A is fixed inside what only this task's inputs use.

    With H the inputs (tokens × in) of a matrix, C = HᵀH and M an orthonormal basis of what earlier tasks
    used,

        A = (leading r right singular vectors of H (I − M Mᵀ))ᵀ / √3,   B trained from zero

    so that the update does not act on M at all. After the task M grows by the directions that are needed to
    hold ``energy`` of the task's inputs (gradient projection memory, of which DualGPM stores the smaller
    half). That is the paper's rule. The authors' code looks at C in place of H: energy is its squared
    eigenvalues, A the leading left singular vectors of (I − M Mᵀ) C, and the first task adds one direction
    fewer.
    """

    def __init__(self, settings: InputsStart) -> None:
        super().__init__()
        self.settings, self.tasks = settings, 1
        self.used: dict[str, Tensor] = {}
        self._seen: dict[str, Tensor] = {}

    def meet(self, model: ClipClassifier, data: StreamData) -> None:
        """How many tasks there will be, over which the threshold grows."""
        self.tasks = len(data.tasks)

    def look_ahead(self, slots: Sequence[Slot], model: nn.Module, experience) -> None:
        """Input covariances of the coming experience."""
        free = {slot.name: self._free_directions(slot) for slot in slots}
        if not any(free.values()):
            raise UserError(
                f"task '{experience.name}': the inputs of earlier tasks use every direction of every "
                f"adapted matrix, so nothing is left to train; lower adapter.start.energy "
                f"(now {self.settings.energy:g})"
            )
        self._seen = input_covariances(slots, model, experience, self.settings.images)
        self.notes = []

    def _free_directions(self, slot: Slot) -> int:
        return slot.weight.shape[1] - (self.used[slot.name].shape[1] if slot.name in self.used else 0)

    def begun(self) -> None:
        """As in the base class."""
        self._seen = {}

    def of(self, slot: Slot, rank: int, scaling: float, input: Side, output: Side | None = None) -> Start:
        """The leading free input directions; fewer than the rank where no more are free."""
        covariance, basis = self._seen[slot.name], self.used.get(slot.name)
        free = self._free_directions(slot)
        if free < rank:
            self.notes.append(
                f"{slot.name}: the inputs of earlier tasks leave {free} of {len(covariance)} directions, "
                f"so {free} are trained instead of {rank}; a lower adapter.start.energy leaves more"
            )
        a = leading(covariance, basis, max(1, min(rank, free)), self.settings.rule) / 3**0.5
        if basis is not None:  # exact zero on what earlier tasks used, not merely up to rounding
            basis = basis.to(a)
            a = a - (a @ basis) @ basis.mT
        return Start(a=a.to(slot.weight.dtype).cpu(), train_a=False)

    def look_back(self, slots: Sequence[Slot], model: nn.Module, experience) -> None:
        """Add the directions that this experience's inputs used."""
        covariances = input_covariances(slots, model, experience, self.settings.images)
        energy = self.threshold(experience.current_experience)
        for name, covariance in covariances.items():
            self.used[name] = with_inputs(self.used.get(name), covariance, energy, self.settings.rule)

    def threshold(self, task: int) -> float:
        """Share of energy that task ``task`` (from 0) keeps."""
        first, last = self.settings.energy, self.settings.energy_end
        return first if last is None else first + (last - first) * task / self.tasks

    def tensors(self) -> dict[str, Tensor]:
        """The bases M."""
        return dict(self.used)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take them back."""
        self.used = dict(tensors)


def leading(covariance: Tensor, basis: Tensor | None, count: int, rule: str) -> Tensor:
    """``count × in``: the leading input directions outside a basis, as the rows of A.

    Args:
        covariance: C, ``in × in``.
        basis: M, ``in × k``; None for nothing.
        count: of directions.
        rule: as in :class:`~cl_complora.config.factors.InputsStart`.
    """
    if rule == "code":
        return torch.linalg.svd(outside(basis, covariance)).U[:, :count].mT
    values, vectors = torch.linalg.eigh(_free(basis, covariance))
    return vectors[:, values.argsort(descending=True)[:count]].mT


def with_inputs(basis: Tensor | None, covariance: Tensor, energy: float, rule: str) -> Tensor:
    """The basis with the directions that hold ``energy`` of a task's inputs.

    Args:
        basis, covariance, rule: as for :func:`leading`.
        energy: share.
    """
    if rule == "code":
        first = int(basis is None)
        return grown(basis, covariance, energy, fewer=first, least=first)
    total, free = float(covariance.trace()), _free(basis, covariance)
    values, vectors = torch.linalg.eigh(free)
    missing = directions_missing(values.flip(0).clamp_min(0), float(free.trace()), total, energy)
    return extended(basis, vectors.flip(1), missing, room=1)


def _free(basis: Tensor | None, covariance: Tensor) -> Tensor:
    """(I − P) C (I − P)."""
    if basis is None:
        return covariance
    basis = basis.to(covariance)
    rest = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device) - basis @ basis.mT
    return rest @ covariance @ rest
