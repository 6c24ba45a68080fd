"""The display as an observer of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..data.tasks import StreamData, TaskData
from ..delta import TaskDelta
from ..engine.observer import Observer
from ..progress import Progress
from ..store.forms import TRANSDUCTIVE
from ..store.records import Record


class ProgressObserver(Observer):
    """Hands a run's tasks and rows on to the display.

    Args:
        progress: the display.
        total: number of tasks.
    """

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.total = progress, total

    def stream_begins(self, data: StreamData, deltas: Sequence[TaskDelta]) -> None:
        """The head of the rows to come, where the display has one."""
        if begins := getattr(self.progress, "begins", None):
            begins([task.name for task in data.tasks], list(data.zero_shot))

    def task_begins(self, task: TaskData, steps: int) -> None:
        """As in the base class."""
        self.progress.task(task.index, self.total, task.name, steps)

    def recorded(self, learned: int, record: Record, before: bool = False) -> None:
        """A new row; those of an earlier process were shown by it."""
        if not before:
            self.progress.evaluated(learned, record.row, record.zero_shot)
            for name, both in record.retrieval.items():
                self.progress.message(f"{name}: {told_recalls(both)}")
            for name, found in record.multi_label.items():
                self.progress.message(f"{name}: {told_precisions(found)}")


def told_recalls(both: dict[str, dict[str, float]]) -> str:
    """``image to text R@1 52.0, R@5 80.0, R@10 90.0; text to image …`` in percent."""
    return "; ".join(
        f"{direction.replace('_', ' ')} {', '.join(f'{k} {100 * value:.1f}' for k, value in shares.items())}"
        for direction, shares in both.items()
    )


def told_precisions(found: dict[str, float]) -> str:
    """``mAP 52.0; transductive: normalised 55.0, SPARC 57.0`` in percent, without what was not measured."""
    told = {"mAP_normalised": "normalised", "mAP_sparc": "SPARC"}
    more = [f"{told[key]} {100 * found[key]:.1f}" for key in TRANSDUCTIVE if math.isfinite(found[key])]
    plain = f"mAP {100 * found['mAP']:.1f}"
    return f"{plain}; transductive: {', '.join(more)}" if more else plain
