"""Changes of accuracy measured on the same images: from the answers that every state of a run left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import metrics
from ..errors import UserError
from ..metrics import PairedChange
from ..store.folder import RunDir
from .mistakes import changes
from .retrieved import retrieval_changes


@dataclass
class PairedChanges:
    """What changed on the same images, as far as a run's answers tell.

    Attributes:
        tasks: task → since it was just trained (all but the task trained last).
        sets: zero-shot set → since the untouched model.
        retrieval: retrieval set → direction → R@1 since the untouched model, by query.
    """

    tasks: dict[str, PairedChange] = field(default_factory=dict)
    sets: dict[str, PairedChange] = field(default_factory=dict)
    retrieval: dict[str, dict[str, PairedChange]] = field(default_factory=dict)

    def bwt(self, tasks: int) -> tuple[float, float, float] | None:
        """Mean over the tasks with its 95 % interval; None unless all of so many are known."""
        known = list(self.tasks.values())
        return metrics.mean_change(known) if known and len(known) == tasks else None


def paired_changes(folder: RunDir, results: dict[str, Any]) -> PairedChanges:
    """Compare the last state of a run with those that its tasks and zero-shot sets began from.

    What has no answers, or others than its results were counted from, is left out.

    Args:
        folder: the run.
        results: its results.json, of as many tasks as are done.
    """
    rows = np.array(results["accuracy"], dtype=float).reshape(-1, len(results["tasks"]))
    trained = len(rows) - 1
    tasks = {
        name: _change(folder, results, name, rows[:, place], place + 1, trained)
        for place, name in enumerate(results["tasks"][: max(0, trained - 1)])
    }
    sets = {
        name: _change(folder, results, name, results["zero_shot"][name], 0, trained)
        for name in results["zero_shot_sets"]
    }
    known = ({name: c for name, c in part.items() if c is not None} for part in (tasks, sets))
    return PairedChanges(*known, retrieval_changes(folder, results))


def set_curve(folder: RunDir, results: dict[str, Any], name: str) -> list[PairedChange] | None:
    """Changes on a zero-shot set since the untouched model, one after every task; None where any is unknown.

    Args:
        folder, results: as for :func:`paired_changes`.
        name: of the set.
    """
    values = results["zero_shot"][name]
    found = [_change(folder, results, name, values, 0, state) for state in range(1, len(values))]
    known = [change for change in found if change is not None]
    return known if len(known) == len(found) else None


def task_curve(folder: RunDir, results: dict[str, Any], place: int) -> list[PairedChange] | None:
    """Changes on a task since it was just trained, one after every later task; None where any is unknown.

    Args:
        folder, results: as for :func:`paired_changes`.
        place: of the task, from 0.
    """
    values = [row[place] for row in results["accuracy"]]
    states = range(place + 2, len(values))
    found = [_change(folder, results, results["tasks"][place], values, place + 1, now) for now in states]
    known = [change for change in found if change is not None]
    return known if known and len(known) == len(found) else None


def _change(
    folder: RunDir,
    results: dict[str, Any],
    name: str,
    values: Sequence[float | None] | np.ndarray,
    earlier: int,
    now: int,
) -> PairedChange | None:
    """The change between two states where the answers tell what the results (``values`` by state) tell."""
    if results.get("independent") or now <= earlier:
        return None
    try:
        config = folder.read_config()
        if config is None:
            return None
        seen = changes(folder, config, name, earlier, now)
    except UserError:  # a run that kept no answers, or damaged ones: told where single answers are shown
        return None
    lost = len(seen.mistakes)
    won = seen.right_now - seen.right_earlier + lost
    if not seen.images or values[now] is None or values[earlier] is None:
        return None
    change = metrics.paired_change(lost, won, seen.images)
    return change if abs(change.change - (values[now] - values[earlier])) < 1e-6 else None
