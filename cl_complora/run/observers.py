"""The display as an observer of a run."""

from __future__ import annotations

from ..data.tasks import TaskData
from ..engine.observer import Observer
from ..progress import Progress
from ..store.records import Record


class ProgressObserver(Observer):
    """Hands a run's tasks and rows on to the display.

    Args:
        progress: the display.
        total: number of tasks.
    """

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.total = progress, total

    def task_begins(self, task: TaskData, steps: int) -> None:
        """As in the base class."""
        self.progress.task(task.index, self.total, task.name, steps)

    def recorded(self, learned: int, record: Record, before: bool = False) -> None:
        """A new row; those of an earlier process were shown by it."""
        if not before:
            self.progress.evaluated(learned, record.row, record.zero_shot)
            for name, both in record.retrieval.items():
                self.progress.message(f"{name}: {told_recalls(both)}")


def told_recalls(both: dict[str, dict[str, float]]) -> str:
    """``image to text R@1 52.0, R@5 80.0, R@10 90.0; text to image …`` in percent."""
    return "; ".join(
        f"{direction.replace('_', ' ')} {', '.join(f'{k} {100 * value:.1f}' for k, value in shares.items())}"
        for direction, shares in both.items()
    )
