"""How far and where a run's updates moved the weights, measured alike for every method."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ..analysis.changes import change_of_parameter
from ..config import Scenario
from ..config.loading import Located
from ..files import write_json
from ..store.folder import RunDir
from ..subspace import Keep, overlap, principal

if TYPE_CHECKING:
    from torch import Tensor

    from ..delta import TaskDelta

# The principal subspace that updates are compared with, whatever a method itself protects.
ENERGY = 0.5
# Directions of earlier updates that count: those that hold this share of their squared norm.
EARLIER = 0.99


def measure_updates(folder: Path, scenario: Located[Scenario]) -> list[dict[str, float | None]]:
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
    stored = run.read_json(run.updates)
    if stored is not None:
        return stored
    results = run.read_json(run.results)
    from ..store.deltas import load_delta

    measure = _Measure(scenario)
    rows = [measure.add(load_delta(run.delta(index, name))) for index, name in enumerate(results["tasks"])]
    write_json(run.updates, rows)
    return rows


class _Measure:
    """The maps of a model with what earlier updates used."""

    def __init__(self, scenario: Located[Scenario]) -> None:
        from ..clip.model import load_clip
        from ..clip.slots import open_slots

        model = load_clip(scenario.value.model, scenario.folder).model
        self.slots = open_slots(model)
        self.split = {s.key: principal(s.weight, Keep("energy", ENERGY)) for s in self.slots}
        self.sum: dict[str, Tensor] = {}
        self.columns: dict[str, Tensor] = {}
        self.rows: dict[str, Tensor] = {}

    def add(self, delta: TaskDelta) -> dict[str, float | None]:
        changes = self._changes(delta)
        total = sum(float(c.square().sum()) for c in changes.values())
        row: dict[str, float | None] = {"norm": delta.norm(), "matrix_norm": math.sqrt(total)}
        row |= dict.fromkeys(("principal", "earlier", "cosine"))
        if total > 0:
            row["principal"] = math.sqrt(sum(self._touching(k, c) for k, c in changes.items()) / total)
            known = sum(float(self.sum[k].square().sum()) for k in changes if k in self.sum)
            if known > 0:
                row["earlier"] = math.sqrt(
                    sum(self._inside(k, c) for k, c in changes.items() if k in self.sum) / total
                )
                inner = sum(float((c * self.sum[k]).sum()) for k, c in changes.items() if k in self.sum)
                row["cosine"] = inner / math.sqrt(total * known)
        for key, change in changes.items():
            self.sum[key] = self.sum.get(key, 0) + change
            self.columns[key] = self.columns.get(key, 0) + change @ change.mT
            self.rows[key] = self.rows.get(key, 0) + change.mT @ change
        return row

    def _changes(self, delta: TaskDelta) -> dict[str, Tensor]:
        """Slot key → ΔW of that map in float64, also where q, k and v moved as one weight."""
        low = {key: (b @ a).double() for key, (b, a) in delta.factors.items()}
        changes = {}
        for slot in self.slots:
            if slot.key in low:
                changes[slot.key] = low[slot.key]
            elif (change := change_of_parameter(delta, slot)) is not None:
                changes[slot.key] = change.double()
        return changes

    def _touching(self, key: str, change: Tensor) -> float:
        split = self.split[key]
        u, v = split.u_c.double(), split.v_c.double()
        return float((change - u @ (u.mT @ change @ v) @ v.mT).square().sum())

    def _inside(self, key: str, change: Tensor) -> float:
        if not bool(self.columns[key].any()):  # nothing moved it earlier
            return 0.0
        norm = float(change.square().sum())
        sides = (change, self.columns[key]), (change.mT, self.rows[key])
        return norm * sum(overlap(side, _leading(gram)) ** 2 for side, gram in sides) / 2


def _leading(gram: Tensor) -> Tensor:
    """Eigenvectors of a positive matrix that hold the share EARLIER of its trace."""
    import torch

    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    count = int((values.cumsum(0) < EARLIER * values.sum() * (1 - 1e-12)).sum()) + 1
    return vectors[:, :count]
