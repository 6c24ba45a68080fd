"""Where an interrupted run goes on: after the last task of which all is whole that a later one needs."""

from __future__ import annotations

from collections.abc import Callable

from ..engine.task_state import plugins_intact
from ..store.folder import RunDir
from ..store.records import Record, finished_records
from .inputs import RunInputs
from .learner import Learner


def whole_records(
    run: RunInputs, learner: Learner, folder: RunDir, tell: Callable[[str], None]
) -> list[Record]:
    """Records of the untouched model and of the finished tasks, as far as can be gone on from.

    Args:
        run: what is run.
        learner: of it.
        folder: of it.
        tell: told of what is damaged or gone; it is made again.
    """
    heads = learner.head is not None and learner.head.keeps_heads
    records = finished_records(folder, run.plans, tell, heads)
    done = len(records)
    if run.scenario.independent or done > len(run.plans.tasks):
        return records  # there is no later task that needs what these left
    while done > 1:
        index, name = run.state_name(done - 1)
        if plugins_intact(learner.plugins, folder, index, name):
            break
        tell(f"what '{name}' left for later tasks is damaged or gone; going on from before it")
        done -= 1
    return records[:done]
