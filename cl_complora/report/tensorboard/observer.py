"""TensorBoard of a run while it goes on, and the trackers that are told the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...engine.observer import Observer
from ...store.folder import RunDir
from ...store.records import Record
from ..trackers import Everywhere, open_trackers
from .layout import MeasuredNames
from .writer import BoardWriter

if TYPE_CHECKING:
    from torch import Tensor

    from ...data.tasks import StreamData
    from ...delta import TaskDelta


class BoardObserver(Observer):
    """Writes event files while a run goes on; a resumed run writes what earlier processes measured again.

    Args:
        folder: the run.
        independent: whether every task started from the pretrained weights.
        pictures: (task, places among its measured images) → those images, ``N × 3 × H × W`` uint8.
        tell: told where the events cannot be written.
        trackers: names of trackers that are told the same (:mod:`~cl_complora.report.trackers`).
    """

    def __init__(
        self,
        folder: RunDir,
        independent: bool,
        pictures: Callable[[str, Sequence[int]], Tensor],
        tell: Callable[[str], None],
        trackers: Sequence[str] = (),
    ) -> None:
        self.folder, self.independent, self.pictures, self.tell = folder, independent, pictures, tell
        self.trackers = trackers
        self.board: BoardWriter | None = None

    def stream_begins(self, data: StreamData, deltas: Sequence[TaskDelta]) -> None:
        """Empty the folder and open it."""
        names = MeasuredNames(
            [task.name for task in data.tasks],
            list(data.zero_shot),
            list(data.retrieval),
            list(data.multi_label),
            [task.name for task in data.tasks if task.captioned],
        )
        self.board = BoardWriter(self.folder, names, self.independent, self.pictures, self.tell)
        self.board.__enter__()
        if self.trackers:
            config = self.board.config or {}
            told = (config.get(part, {}).get("name", "") for part in ("scenario", "strategy"))
            name = " · ".join([*told, f"seed {config.get('seed', 0)}"])
            opened = open_trackers(self.trackers, name, config, self.folder.root, self.tell)
            self.board.writer = Everywhere(self.board.writer, opened)

    def recorded(self, learned: int, record: Record, before: bool = False) -> None:
        """A row of the matrix and what came with it."""
        self.board.add(
            learned,
            record.row,
            record.zero_shot,
            record.detail,
            record.curve,
            record.geometry,
            record.retrieval,
            record.multi_label,
            record.training_accuracy,
        )

    def stream_ends(self) -> None:
        """The row of the HParams table."""
        self.board.finish()

    def __exit__(self, *raised: object) -> None:
        """Close the files."""
        if self.board is not None:
            self.board.__exit__(None, None, None)
