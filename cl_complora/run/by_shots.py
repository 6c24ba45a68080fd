"""Accuracy by how many training images a class has, where classes of a task have uneven numbers of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..config.scenario import Scenario, ShotGroups
from ..data.planning import Plan, Plans
from ..store.forms import BY_SHOTS, SHOT_GROUPS
from ..store.records import Record


def bounds_of(scenario: Scenario, plans: Plans) -> ShotGroups | None:
    """Between which numbers of training images the groups are parted; None where no task has uneven ones and
    the scenario does not ask."""
    if scenario.shot_groups is not None:
        return scenario.shot_groups
    return (
        ShotGroups()
        if any(len(set(shots_of(plan))) > 1 for plan in plans.tasks if not plan.captioned)
        else None
    )


def shots_of(plan: Plan) -> list[int]:
    """Training images of every class of a task, in label order."""
    counts = np.bincount([item.label for item in plan.train], minlength=len(plan.class_names))
    return [int(count) for count in counts]


def groups_of(plan: Plan, bounds: ShotGroups) -> list[str]:
    """The group of every class of a task: ``many`` above ``bounds.many`` training images, ``few`` below
    ``bounds.few``, else ``medium``."""
    named = {True: "many", False: "medium"}
    return ["few" if n < bounds.few else named[n > bounds.many] for n in shots_of(plan)]


def by_shots(answered: np.ndarray, labels: np.ndarray, places: Sequence[int], groups: Sequence[str]) -> dict:
    """Means of the classes' accuracies: of all (``macro``) and of each group; NaN where there is no class.

    Args:
        answered, labels: of every test image.
        places: the label of every class of the task.
        groups: its group.
    """
    found: dict[str, list[float]] = {name: [] for name in BY_SHOTS}
    for place, group in zip(places, groups, strict=True):
        its = labels == place
        if its.any():
            right = float((answered[its] == place).mean())
            found["macro"].append(right)
            found[group].append(right)
    return {name: _mean(values) for name, values in found.items()}


def results_by_shots(scenario: Scenario, plans: Plans, records: Sequence[Record]) -> dict[str, Any] | None:
    """The ``by_shots`` of results.json (docs/losses.md), or None where shots are even.

    Args:
        scenario, plans: of the run.
        records: the untouched model's, then one for every finished task.
    """
    bounds = bounds_of(scenario, plans)
    if bounds is None:
        return None
    tasks = [plan.name for plan in plans.tasks]
    accuracy = {
        name: [[record.by_shots.get(task, {}).get(name, math.nan) for task in tasks] for record in records]
        for name in BY_SHOTS
    }
    learned = len(records) - 1
    classes = {}
    for plan in (plan for plan in plans.tasks if not plan.captioned):
        groups = groups_of(plan, bounds)
        classes[plan.name] = {name: groups.count(name) for name in SHOT_GROUPS}
    last = {}
    for name, rows in accuracy.items():
        final = [rows[task + 1 if scenario.independent else -1][task] for task in range(learned)]
        last[name] = _mean([value for value in final if not math.isnan(value)])
    return {
        "many_above": bounds.many,
        "few_below": bounds.few,
        "classes": classes,
        "accuracy": accuracy,
        "last": last,
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
