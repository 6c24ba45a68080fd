"""Changes of accuracy measured on the same images: from the answers that every state of a run left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import metrics
from ..config.recorded import learned_at_once
from ..errors import UserError
from ..metrics import PairedChange
from ..store.folder import RunDir
from .mistakes import AnsweredSet
from .retrieved import retrieval_changes


@dataclass
class PairedChanges:
    """What changed on the same images, as far as a run's answers tell.

    Attributes:
        tasks: task → since it was just trained (all but the task trained last; none where all were trained
            together).
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
    try:
        config = folder.read_config()
    except UserError:  # told where its settings are shown
        config = None
    rows = np.array(results["accuracy"], dtype=float).reshape(-1, len(results["tasks"]))
    trained = len(rows) - 1
    followed = [] if learned_at_once(config) else results["tasks"][: max(0, trained - 1)]
    tasks = {
        name: _changes(folder, config, results, name, rows[:, place], place + 1, [trained])
        for place, name in enumerate(followed)
    }
    sets = {
        name: _changes(folder, config, results, name, results["zero_shot"][name], 0, [trained])
        for name in results["zero_shot_sets"]
    }
    known = ({name: found[0] for name, found in part.items() if found} for part in (tasks, sets))
    return PairedChanges(*known, retrieval_changes(folder, config, results))


def set_curve(
    folder: RunDir, config: dict[str, Any] | None, results: dict[str, Any], name: str
) -> list[PairedChange] | None:
    """Changes on a zero-shot set since the untouched model, one after every task; None where any is unknown.

    Args:
        folder, results: as for :func:`paired_changes`.
        config: the run's config.yaml, where there is one.
        name: of the set.
    """
    values = results["zero_shot"][name]
    return _changes(folder, config, results, name, values, 0, range(1, len(values)))


def task_curve(
    folder: RunDir, config: dict[str, Any] | None, results: dict[str, Any], place: int
) -> list[PairedChange] | None:
    """Changes on a task since it was just trained, one after every later task; None where any is unknown, or
    there is none.

    Args:
        folder, config, results: as for :func:`set_curve`.
        place: of the task, from 0.
    """
    values = [row[place] for row in results["accuracy"]]
    states = range(place + 2, len(values))
    return _changes(folder, config, results, results["tasks"][place], values, place + 1, states) or None


def _changes(
    folder: RunDir,
    config: dict[str, Any] | None,
    results: dict[str, Any],
    name: str,
    values: Sequence[float | None] | np.ndarray,
    earlier: int,
    states: Sequence[int],
) -> list[PairedChange] | None:
    """The changes from one state to others, where the answers tell what the results (``values`` by state)
    tell of all of them."""
    if not states:
        return []
    if config is None or results.get("independent") or any(now <= earlier for now in states):
        return None
    found: list[PairedChange] = []
    try:
        # Once for all states: a long stream has many pairs of them.
        seen = AnsweredSet.of(folder, config, name)
        before = seen.right(earlier)
        for now in states:
            after = seen.right(now)
            if not len(after) or values[now] is None or values[earlier] is None:
                return None
            lost, won = int((before & ~after).sum()), int((after & ~before).sum())
            change = metrics.paired_change(lost, won, len(after))
            if not abs(change.change - (values[now] - values[earlier])) < 1e-6:
                return None
            found.append(change)
    except UserError:  # a run that kept no answers, or damaged ones: told where single answers are shown
        return None
    return found
