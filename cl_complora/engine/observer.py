"""Who watches a run: told what happens, in a few hooks, and unable to change it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from ..data.tasks import StreamData, TaskData
from ..delta import TaskDelta
from ..store.records import Record


class Observer(AbstractContextManager):
    """Does nothing at any hook. The trainer enters its observers before the first hook and leaves them at its
    end, however it ends."""

    def stream_begins(self, data: StreamData, deltas: Sequence[TaskDelta]) -> None:
        """The model is as the finished tasks left it.

        Args:
            data: the stream.
            deltas: what the finished tasks added to the weights; none at the start of a stream.
        """

    def task_begins(self, task: TaskData, steps: int) -> None:
        """A task is about to be trained for so many steps (0: nothing is trained)."""

    def task_learned(self, task: TaskData, delta: TaskDelta) -> None:
        """The task's update is merged, and measured; its record is not yet on the disk."""

    def recorded(self, learned: int, record: Record, before: bool = False) -> None:
        """The record of the state after ``learned`` tasks (0: the untouched model) is on the disk.

        Args:
            learned, record: which, and what it says.
            before: whether an earlier process wrote it.
        """

    def stream_ends(self) -> None:
        """Every task is recorded."""

    def __exit__(self, *raised: object) -> None:
        """Let go of what was opened."""
