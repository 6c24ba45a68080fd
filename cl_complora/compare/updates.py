"""How far and where a run's updates moved the weights, measured alike for every method."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..analysis.changes import change_of_parameter
from ..config import Scenario
from ..config.loading import Located
from ..files import write_json
from ..store.folder import RunDir
from ..subspace import Keep, overlap, principal
from .update_rows import FIGURES, Rows, stored_rows

if TYPE_CHECKING:
    from torch import Tensor

    from ..clip.slots import Slot
    from ..delta import TaskDelta

# The principal subspace that updates are compared with, whatever a method itself protects.
ENERGY = 0.5
# Directions of earlier updates that count: those that hold this share of their squared norm.
EARLIER = 0.99


def measure_updates(folder: Path, scenario: Located[Scenario]) -> Rows:
    """Per task: norms and overlaps of its update over all linear maps of the model; kept beside the results.

    With W_0 the pretrained weight, U_k Σ_k V_kᵀ its principal part (half of its energy) and P the
    projections,

        norm              ‖ΔW‖_F of everything that moved
        matrix_norm       of the linear maps alone
        principal         ‖ΔW − (I − P_U) ΔW (I − P_V)‖_F / ‖ΔW‖_F: the share that touches the principal
                          subspaces
        earlier           share of ‖ΔW‖_F in the leading directions of earlier updates, the mean of both sides
        cosine            ⟨ΔW, Σ earlier⟩ / (‖ΔW‖ ‖Σ earlier‖)

    each over all linear maps together; None where there is nothing to compare with.
    """
    run = RunDir(folder)
    tasks = run.read_json(run.results)["tasks"]
    stored = stored_rows(run, tasks)
    if stored is not None:
        return stored
    from ..store.deltas import load_delta

    measure = _Measure(scenario)
    rows = [measure.add(load_delta(run.delta(index, name))) for index, name in enumerate(tasks)]
    write_json(run.updates, rows)
    return rows


class _Change(NamedTuple):
    """ΔW of a map in float64, with its factors (B, A) where it is low-rank."""

    whole: Tensor
    factors: tuple[Tensor, Tensor] | None = None

    def turned(self) -> _Change:
        """ΔWᵀ."""
        factors = None if self.factors is None else (self.factors[1].mT, self.factors[0].mT)
        return _Change(self.whole.mT, factors)


class _Measure:
    """The maps of a model with what earlier updates used."""

    def __init__(self, scenario: Located[Scenario]) -> None:
        from ..clip.model import load_clip
        from ..clip.slots import open_slots

        loaded = load_clip(scenario.value.model, scenario.folder)
        self.slots = {slot.key: slot for slot in open_slots(loaded.model)}
        self.principal = _principal_of(loaded.sha256)
        self.sum: dict[str, Tensor] = {}
        self.earlier: dict[str, tuple[Used, Used]] = {}

    def add(self, delta: TaskDelta) -> dict[str, float | None]:
        changes = self._changes(delta)
        total = sum(float(c.whole.square().sum()) for c in changes.values())
        row: dict[str, float | None] = dict.fromkeys(FIGURES)
        row |= {"norm": delta.norm(), "matrix_norm": math.sqrt(total)}
        if total > 0:
            row["principal"] = math.sqrt(sum(self._touching(k, c.whole) for k, c in changes.items()) / total)
            if any(bool(self.sum[k].any()) for k in changes if k in self.sum):
                row["earlier"] = math.sqrt(
                    sum(self._inside(k, c.whole) for k, c in changes.items() if k in self.sum) / total
                )
                inner = sum(float((c.whole * self.sum[k]).sum()) for k, c in changes.items() if k in self.sum)
                known = sum(float(earlier.square().sum()) for earlier in self.sum.values())
                row["cosine"] = inner / math.sqrt(total * known)
        for key, change in changes.items():
            self.sum[key] = self.sum.get(key, 0) + change.whole
            for used, side in zip(self._used(key, change.whole), (change, change.turned()), strict=True):
                used.add(side)
        return row

    def _changes(self, delta: TaskDelta) -> dict[str, _Change]:
        """Slot key → ΔW of that map, also where q, k and v moved as one weight."""
        changes = {}
        for key, slot in self.slots.items():
            if key in delta.factors:
                b, a = (factor.double() for factor in delta.factors[key])
                changes[key] = _Change(b @ a, (b, a))
            elif (change := change_of_parameter(delta, slot)) is not None:
                changes[key] = _Change(change.double())
        return changes

    def _touching(self, key: str, change: Tensor) -> float:
        if key not in self.principal:
            self.principal[key] = _leading_of(self.slots[key])
        u, v = (basis.double() for basis in self.principal[key])
        on_left = u @ (u.mT @ change)
        rest = change - on_left
        return float((on_left + (rest @ v) @ v.mT).square().sum())

    def _inside(self, key: str, change: Tensor) -> float:
        norm = float(change.square().sum())
        sides = zip((change, change.mT), self.earlier[key], strict=True)
        return norm * sum(overlap(side, used.leading()) ** 2 for side, used in sides) / 2

    def _used(self, key: str, change: Tensor) -> tuple[Used, Used]:
        return self.earlier.setdefault(key, (Used(change.shape[0]), Used(change.shape[1])))


class Used:
    """Directions on one side of a map that updates used, of Σ ΔW ΔWᵀ.

    As long as the updates are low-rank, ΔW = B A, the sum is kept as its factors: with B₁ … B_t side by side
    and S the block diagonal of A Aᵀ it is B S Bᵀ, whose eigenvectors follow from a matrix as small as all
    ranks together and not from one of the map's thousands of rows.

    Args:
        rows: of the map, on this side.
    """

    def __init__(self, rows: int) -> None:
        self.basis = torch.zeros(rows, 0, dtype=torch.float64)
        self.inner = torch.zeros(0, 0, dtype=torch.float64)
        self.gram: Tensor | None = None

    def add(self, change: _Change) -> None:
        """Count an update in, whose rows are this side's."""
        if self.gram is None and change.factors is not None:
            b, a = change.factors
            if self.basis.shape[1] + b.shape[1] < len(self.basis):
                self.basis = torch.cat([self.basis, b], 1)
                self.inner = torch.block_diag(self.inner, a @ a.mT)
                return
        if self.gram is None:
            self.gram = self.basis @ self.inner @ self.basis.mT
        self.gram = self.gram + change.whole @ change.whole.mT

    def leading(self) -> Tensor:
        """Orthonormal directions that hold the share ``EARLIER`` of the updates' squared norm; none where
        nothing moved."""
        if self.gram is not None:
            return _leading(self.gram)
        q, r = torch.linalg.qr(self.basis)
        return q @ _leading(r @ self.inner @ r.mT)


def _leading(gram: Tensor) -> Tensor:
    """Eigenvectors of a positive matrix that hold the share EARLIER of its trace."""
    if not bool(gram.any()):
        return gram[:, :0]
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    count = int((values.cumsum(0) < EARLIER * values.sum() * (1 - 1e-12)).sum()) + 1
    return vectors[:, :count]


# Weights → map → bases of its principal subspace, out and in: of the last weights, which a worker's next run
# most often has as well. Only of maps that were moved, and only what is asked of them: it stays in memory.
_PRINCIPAL: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}


def _principal_of(weights: str) -> dict[str, tuple[Tensor, Tensor]]:
    if weights not in _PRINCIPAL:
        _PRINCIPAL.clear()
        _PRINCIPAL[weights] = {}
    return _PRINCIPAL[weights]


def _leading_of(slot: Slot) -> tuple[Tensor, Tensor]:
    split = principal(slot.weight, Keep("energy", ENERGY), ordered=False)
    return split.u_k.clone(), split.v_k.clone()
