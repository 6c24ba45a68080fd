"""What later tasks' updates of the towers did to the heads of earlier ones."""

from __future__ import annotations

from ...store.loaded_run import LoadedRun
from ..elements import Cell, Table, percent

_NOTE = (
    "Percent of a task's own images that its head gets right: when it was just fitted, and with the towers as"
    " they are now. A head stays as it was fitted, so the difference, in points, is what later updates of the"
    " towers did to it."
)


def head_drift_table(run: LoadedRun) -> list[Table]:
    """Every finished task; nothing where no task has a head of its own."""
    drift = run.results.get("head_drift")
    if not drift or not run.measured:
        return []
    rows = []
    for name, both in drift.items():
        fitted, now = both["fitted"], both["now"]
        moved = None if None in (fitted, now) else now - fitted
        rows.append([Cell(name), percent(fitted), percent(now), percent(moved, signed=True)])
    return [Table("Drift of the heads", ["task", "just fitted %", "now %", "drift"], rows, _NOTE)]
