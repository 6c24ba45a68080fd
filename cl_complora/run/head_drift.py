"""How far heads went stale: towers that move on under a head that stays."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.heads import IN_WEIGHTS
from ..store.records import Record
from .inputs import RunInputs


def head_drift(run: RunInputs, records: Sequence[Record]) -> dict[str, dict[str, float]] | None:
    """Finished task → what its head got right of the task's own images when it was just fitted, and with the
    towers as they are now; None where no task has a head of its own that later tasks could leave behind.

    A head stays as it was fitted, so the difference is what later tasks' updates of the towers did to it:
    exactly zero where nothing but heads is trained.

    Args:
        run: what is run.
        records: the untouched model's, then one for every finished task.
    """
    head, scenario = run.strategy.head, run.scenario
    if head is None or head.kind in IN_WEIGHTS or scenario.independent or scenario.shares_labels:
        return None
    finished = run.plans.tasks[: len(records) - 1]
    return {
        plan.name: {"fitted": records[place + 1].row[place], "now": records[-1].row[place]}
        for place, plan in enumerate(finished)
        if not plan.captioned  # the towers alone answer there
    }
