"""What is kept of a run's updates, a row for every task, read back without being trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import UserError
from ..store.folder import RunDir

# Of every update. The norm is always known; the others are None where there is nothing to compare with, or
# where somebody measured the norm alone.
FIGURES = ("norm", "matrix_norm", "principal", "earlier", "cosine")

Rows = list[dict[str, float | None]]


def are_rows(content: Any, tasks: int) -> bool:
    """Whether it is a row for each of so many tasks, with everything that is read of one."""
    return isinstance(content, list) and len(content) == tasks and all(map(_is_row, content))


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not set(FIGURES) <= row.keys() or row["norm"] is None:
        return False
    return all(row[key] is None or is_number(row[key]) for key in FIGURES)


def is_number(value: Any) -> bool:
    """Whether it is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def stored_rows(run: RunDir, tasks: Sequence[str]) -> Rows | None:
    """The rows that an earlier process measured; None where they are to be measured, for the first time or
    again: damaged, of other tasks, or older than a delta, which was learned again.

    Args:
        run: finished.
        tasks: its names.
    """
    try:
        content = run.read_json(run.updates)
    except UserError:
        return None
    if not are_rows(content, len(tasks)):
        return None
    deltas = [run.delta(index, name) for index, name in enumerate(tasks)]
    changed = max((path.stat().st_mtime_ns for path in deltas if path.is_file()), default=0)
    return content if run.updates.stat().st_mtime_ns >= changed else None
