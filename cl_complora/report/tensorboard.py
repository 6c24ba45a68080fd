"""TensorBoard as a view on a run: task index on the x-axis for accuracy, forgetting, retention; steps for the loss."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from .. import metrics

_HEADLINES = ("transfer", "average", "last", "forgetting", "bwt")


class BoardWriter:
    """Writes event files while a run goes on.

    The folder is emptied first and every finished task is written again, so a resumed run has no point twice.

    Args:
        folder: where the event files go.
        tasks: task names in order.
        steps: training steps per task, to place the loss curves one after the other.
    """

    def __init__(self, folder: Path, tasks: Sequence[str], steps: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)
        self.writer = SummaryWriter(str(folder))
        self.tasks, self.steps = list(tasks), steps
        self.rows: list[Sequence[float]] = []
        self.zero_shot: list[dict[str, float]] = []

    def __enter__(self) -> BoardWriter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.writer.close()

    def add(
        self, index: int, row: Sequence[float], zero_shot: dict[str, float], detail: dict, curve: Sequence[float]
    ) -> None:
        """One row of the matrix (index 0: the untouched model) and what came with it."""
        self.rows.append(row)
        self.zero_shot.append(zero_shot)
        scalars = {f"accuracy/{task}": value for task, value in zip(self.tasks, row, strict=True)}
        for name, value in zero_shot.items():
            scalars[f"zero_shot/{name}"] = value
            scalars[f"retention/{name}"] = metrics.retention([self.zero_shot[0][name], value])
        if index:
            trained = [r[:index] for r in self.rows]
            summary = metrics.so_far(self.rows)
            scalars |= {f"stream/{name}": summary[name] for name in _HEADLINES}
            if summary["last"] == summary["last"]:
                for task, forgotten, moved in zip(
                    self.tasks[:index],
                    metrics.forgetting(trained),
                    metrics.backward_transfer(trained),
                    strict=True,
                ):
                    scalars |= {f"forgetting/{task}": forgotten, f"bwt/{task}": moved}
            scalars |= {f"update/{key}": detail[key] for key in ("delta_norm", "protected_overlap")}
        for tag, value in scalars.items():
            if value is not None and value == value:  # None and NaN: not defined (yet)
                self.writer.add_scalar(tag, value, index)
        for step, loss in enumerate(curve, start=1):
            self.writer.add_scalar("train/loss", loss, (index - 1) * self.steps + step)
        self.writer.flush()
