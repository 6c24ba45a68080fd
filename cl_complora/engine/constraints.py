"""The constraint of every matrix of a model over a stream: which directions an update may use, task after
task.

All of it is computed on the CPU, wherever the model is: matrices of some hundred rows are decomposed there
sooner than a GPU has been asked, waited for and answered a dozen times, the same directions come out on every
device, and nothing of it lies in a GPU's memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..clip.slots import Slot
from ..lowrank import Side
from ..subspace import (
    Keep,
    Principal,
    by_matrix,
    orthonormal,
    overlap,
    principal,
    random_basis,
    rest_of,
    unchanged,
)


@dataclass(frozen=True)
class Constraint:
    """Settings of the subspace (see DESIGN: controls must be selectable).

    Attributes:
        select: ``complement`` of the principal subspace, the principal (``top``) subspace itself, the
            ``bottom`` of the complement (as many directions as the rank), a ``random`` one as large as the
            complement, or ``none`` (plain LoRA).
        keep: how many singular triples are principal.
        sides: confine the ``both``, ``in``put or ``out``put side.
        of: decompose the ``merged`` weights before every task, or the ``pretrained`` ones once.
        updates: also protect the row and column spaces of all earlier updates.
        reduced: train coordinates in the complement (True) or project full factors into it.
    """

    select: Literal["complement", "top", "bottom", "random", "none"] = "complement"
    keep: Keep = Keep("energy", 0.5)
    sides: Literal["both", "in", "out"] = "both"
    of: Literal["merged", "pretrained"] = "merged"
    updates: bool = False
    reduced: bool = True

    def __post_init__(self) -> None:
        """Refuse what no projector is made of.

        Raises:
            ValueError: for ``reduced=False`` with another subspace than the complement.
        """
        if not self.reduced and self.select not in ("complement", "none"):
            raise ValueError(f"reduced=False works with select='complement', not {self.select!r}")


@dataclass
class _State:
    split: Principal
    decomposed_at: int
    rows: list[Tensor]
    columns: list[Tensor]


class Subspaces:
    """Principal subspaces of the slots' weights, kept up to date over merges, in the machine's memory.

    Args:
        slots: the matrices.
        constraint: settings.
        rank: rank of the updates (that many directions always stay free).
        seed: of the random control.
    """

    def __init__(self, slots: Sequence[Slot], constraint: Constraint, rank: int, seed: int) -> None:
        self.slots, self.constraint, self.rank, self.seed = list(slots), constraint, rank, seed
        self._states: dict[str, _State] = {}
        self.decompositions = 0

    def _room(self, slot: Slot) -> int:
        """Directions that stay outside the principal ones: as many as the rank, or, for ``bottom``, one,
        since there the rank follows k (NuSA-CL: min(d − k, rank))."""
        if self.constraint.select == "bottom":
            return 1
        return min(self.rank, min(slot.weight.shape) - 1) or 1

    def refresh(self, task: int, only: set[str] | None = None) -> None:
        """Bring the principal subspaces up to the current weights, before task ``task`` is trained.

        A slot whose certificate holds keeps its decomposition. ``only`` restricts recomputation to the named
        slots and skips the certificate: a resumed run repeats exactly the decompositions of the interrupted
        one.
        """
        slots = [slot for slot in self.slots if only is None or slot.name in only]
        splits = by_matrix(lambda slot: self._moved(slot, check=only is None), slots, shapes_of(self.slots))
        for slot, split in zip(slots, splits, strict=True):
            if split is not None:
                state = self._states.get(slot.name)
                rows, columns = (state.rows, state.columns) if state is not None else ([], [])
                self._states[slot.name] = _State(split, task, rows, columns)
                self.decompositions += 1

    def _moved(self, slot: Slot, check: bool) -> Principal | None:
        """A slot's decomposition now; None where that in force still is it, by the certificate or by the
        settings."""
        state = self._states.get(slot.name)
        if state is not None and self.constraint.of == "pretrained":
            return None
        weight = slot.weight.detach().cpu()
        if check and state is not None and self._still_holds(weight, state.split, slot):
            return None
        # Only 'bottom' takes single directions of the complement; the others need no more than a basis of it.
        ordered = self.constraint.select == "bottom"
        return principal(weight, self.constraint.keep, self._room(slot), ordered)

    def _still_holds(self, weight: Tensor, split: Principal, slot: Slot) -> bool:
        """Whether a decomposition gives the directions of the weights as they are now.

        The certificate is about the principal directions and so about their complement as a whole. Which
        single directions are the last of it, every merge changes; on the longer side of a matrix some are
        left out whatever the rank.
        """
        left = max(slot.weight.shape) - split.k
        takes_some = self.constraint.select == "bottom" and self._last(split) < left
        return not takes_some and unchanged(weight, split, self.constraint.keep, self._room(slot))

    def _last(self, split: Principal) -> int:
        """How many single directions ``bottom`` takes on either side, so that a square core fits: min(d − k,
        rank)."""
        return min(self.rank, len(split.sigma) - split.k)

    def split(self, slot: Slot) -> Principal:
        """The decomposition in force for a slot."""
        return self._states[slot.name].split

    def decomposed_at(self) -> dict[str, int]:
        """Slot → task before which its decomposition was computed; what :meth:`refresh` needs to repeat
        it."""
        return {name: state.decomposed_at for name, state in self._states.items()}

    def remember(self, slot: Slot, b: Tensor, a: Tensor) -> None:
        """Add an update ΔW = B A to the earlier ones whose row and column spaces may be protected."""
        if not self.constraint.updates or slot.name not in self._states:
            return
        # A rank that was set to zero, or never left it, has a row of A (or a column of B) all the same, and
        # no part in ΔW: later tasks are free to go there.
        takes_part = b.any(0) & a.any(1)
        if bool(takes_part.any()):
            self._states[slot.name].rows.append(orthonormal(a[takes_part].mT.cpu()))
            self._states[slot.name].columns.append(orthonormal(b[:, takes_part].cpu()))

    def sides(self, task: int) -> list[tuple[Side, Side]]:
        """(output, input) constraint of every slot's factors for task ``task``."""
        return by_matrix(lambda slot: self._sides_of(slot, task), self.slots, shapes_of(self.slots))

    def _sides_of(self, slot: Slot, task: int) -> tuple[Side, Side]:
        if self.constraint.select == "none":
            return Side(), Side()
        state = self._states[slot.name]
        split, select = state.split, self.constraint.select
        if select == "random":
            generator = torch.Generator().manual_seed(stable_seed(self.seed, task, slot.name))
            # As many free directions as the complement leaves, in no particular place.
            free = random_basis(split.u.shape[0], split.u_c.shape[1], generator).to(split.u)
            output = self._outside(split.u_k, free, state.columns)
            free = random_basis(split.v.shape[0], split.v_c.shape[1], generator).to(split.v)
            input = self._outside(split.v_k, free, state.rows)
        elif select == "top":
            output, input = Side(split.u_k), Side(split.v_k)
        elif select == "bottom":
            free = self._last(split)
            output, input = Side(split.u[:, -free:]), Side(split.v[:, -free:])
        else:
            output = self._outside(split.u_k, split.u_c, state.columns)
            input = self._outside(split.v_k, split.v_c, state.rows)
        device, sides = slot.weight.device, self.constraint.sides
        return (
            output.to(device) if sides in ("both", "out") else Side(),
            input.to(device) if sides in ("both", "in") else Side(),
        )

    def _outside(self, protected: Tensor, free: Tensor, updates: list[Tensor]) -> Side:
        if not self.constraint.reduced:
            basis = orthonormal(torch.cat([protected, *updates], 1)) if updates else protected
            return Side(basis[:, : basis.shape[0] - 1], coordinates=False)
        if not updates:
            return Side(free)
        # Work within the complement: directions of earlier updates there, then what is orthogonal to those.
        # Columns are unit vectors here, so what is left of a direction in the protected part is mere
        # rounding.
        inside = orthonormal(free.mT @ torch.cat(updates, 1), tolerance=1e-4, scale=1.0)
        inside = inside[:, : max(free.shape[1] - 1, 0)]
        return Side(rest_of(free, inside))

    def protected_overlap(self, slot: Slot, before: Tensor) -> float:
        """‖(W + ΔW) V_k − U_k Σ_k‖_F / ‖W‖_F: how far the update moved the protected input–output pairs.

        Args:
            slot: its weight already holds W + ΔW.
            before: W.
        """
        split = self._states[slot.name].split
        if split.k == 0:
            return 0.0
        after = slot.weight.cpu().double()
        moved = after @ split.v_k.double() - split.u_k.double() * split.sigma[: split.k].double()
        return float(torch.linalg.matrix_norm(moved) / torch.linalg.matrix_norm(before.cpu().double()))

    def overlaps(self, slot: Slot, delta: Tensor) -> dict[str, float]:
        """Share of ‖ΔW‖ inside the protected output and input subspaces (0 by construction for both
        sides)."""
        split, delta = self._states[slot.name].split, delta.cpu()
        return {"output": overlap(delta, split.u_k), "input": overlap(delta.mT, split.v_k)}


def shapes_of(slots: Sequence[Slot]) -> list[torch.Size]:
    """Rows and columns of slots."""
    return [slot.weight.shape for slot in slots]


def stable_seed(*parts: object) -> int:
    """A seed from names and numbers that is the same in every process (unlike ``hash``)."""
    return zlib.crc32("/".join(map(str, parts)).encode())
