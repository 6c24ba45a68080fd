"""TensorBoard as a view on a run: task index on the x-axis for accuracy, forgetting, retention; steps for the
loss."""

from __future__ import annotations

import math
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

from ... import metrics
from ...analysis.mistakes import Mistake, changes
from ...clip.matrix_names import place_of
from ...config.recorded import learned_at_once, learning_states
from ...errors import UserError
from ...files import yaml_text
from ...store.folder import RunDir
from ...store.forms import Analysis, checked
from ...store.records import Retrieval
from .hparams import COLUMNS, table_row
from .layers import by_layer
from .layout import LEGIBLE, MeasuredNames, custom_scalars
from .numbers import numbers_text

if TYPE_CHECKING:
    from torch import Tensor

_HEADLINES = ("last", "average", "transfer", "forgetting", "bwt")
_MAPS = {
    "delta_norm": "size of the update",
    "principal_overlap": "share in principal part",
    "drift": "drift of principal part",
}
MISTAKES = 8
# Tags of what is left of what the model knew before.
_RETENTIONS = ("retention/", "retrieval_retention/", "multi_label_retention/")


class BoardWriter:
    """Writes event files while a run goes on.

    A disk that takes no more events ends the view, not the run.

    The folder is emptied first and every finished task is written again: a resumed run has no point twice,
    and the same points as one that was never interrupted.

    Args:
        folder: the run.
        names: of what is measured.
        independent: whether every task started from the pretrained weights.
        tell: told where the events cannot be written.
        pictures: (task, places among its test images) → those images, ``N × 3 × H × W`` uint8.
    """

    def __init__(
        self,
        folder: RunDir,
        names: MeasuredNames,
        independent: bool,
        pictures: Callable[[str, Sequence[int]], Tensor],
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder.tensorboard, ignore_errors=True)
        self.writer = SummaryWriter(str(folder.tensorboard))
        self.tell, self.failed = tell, False
        self._hook = threading.excepthook
        self.folder, self.independent, self.pictures = folder, independent, pictures
        self.tasks, self.tags, self.captioned = list(names.tasks), names.tags(), names.captioned
        self.config = folder.read_config()
        self.learned = learning_states(self.config, len(self.tasks))
        self.rows: list[Sequence[float]] = []
        self.zero_shot: list[dict[str, float]] = []
        self.retrieval: Retrieval = {}  # of the untouched model
        self.measured: defaultdict[str, list[float]] = defaultdict(list)  # by tag, the untouched model first
        self.steps = 0
        self.last: dict[str, float] = {}
        self.at_once = learned_at_once(self.config)
        if independent:
            headlines: Sequence[str] = ("last",)
        elif self.at_once or len(self.tasks) == 1:
            headlines = ("average", "last")
        else:
            headlines = _HEADLINES
        self.writer.file_writer.add_summary(custom_scalars(names, headlines))
        text = yaml_text(self.config)
        self.writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()))

    def __enter__(self) -> BoardWriter:
        # Events are written by a thread, whose end for want of room is told by us and not by a traceback.
        threading.excepthook = lambda told: None if isinstance(told.exc_value, OSError) else self._hook(told)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._bearing_a_full_disk():
            if len(self.rows) == 1:  # a run that ends before its first task does
                self._matrix(0)
            self.writer.close()
        threading.excepthook = self._hook

    def add(
        self,
        index: int,
        row: Sequence[float],
        zero_shot: dict[str, float],
        detail: dict,
        curve: Sequence[float],
        geometry: Mapping[str, dict[str, Any]],
        retrieval: Retrieval = MappingProxyType({}),
        precisions: Mapping[str, dict[str, float]] = MappingProxyType({}),
        answered: Sequence[float] = (),
    ) -> None:
        """One row of the matrix (index 0: the untouched model) and what came with it."""
        with self._bearing_a_full_disk():
            self._norms(geometry, index)
            self._recalls(retrieval, index)
            self._precisions(precisions, index)
            self._steps(curve, answered)
            self._add(index, row, zero_shot, detail)

    def finish(self) -> None:
        """The stream is done: a row of the HParams table, with the metrics that the run ended with."""
        with self._bearing_a_full_disk():
            self._finish()

    @contextmanager
    def _bearing_a_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self.failed:
                self.tell(
                    f"{self.folder.tensorboard}: no more events can be written: {error.strerror or error}"
                )
            self.failed = True

    def _add(
        self,
        index: int,
        row: Sequence[float],
        zero_shot: dict[str, float],
        detail: dict,
    ) -> None:
        self.rows.append(row)
        self.zero_shot.append(zero_shot)
        scalars = {f"accuracy/{self.tags[task]}": value for task, value in zip(self.tasks, row, strict=True)}
        for name, value in zero_shot.items():
            scalars[f"zero_shot/{self.tags[name]}"] = value
            tag = f"retention/{self.tags[name]}"
            scalars[tag] = self._retained(tag, value)
        if index:
            scalars |= dict(self._stream(index))
            scalars |= {f"update/{key}": detail[key] for key in ("delta_norm", "protected_overlap")}
        for tag, value in scalars.items():
            if value is not None and math.isfinite(value):  # None and NaN: not defined (yet)
                self.writer.add_scalar(tag, value, index)
                self.last[tag] = value
        # matplotlib takes a second to load: the untouched model is drawn when the first task is.
        if index == 1:
            self._matrix(0)
        if index:
            self._matrix(index)
        if any(map(math.isfinite, row)) and len(self.tasks) <= LEGIBLE:
            self._numbers(index)
        if index and (path := self.folder.analysis(index - 1, self.tasks[index - 1])).exists():
            try:
                self._analysis(checked(path, Analysis, self.folder.read_json(path)), index)
            except UserError as error:  # of an earlier process; this is a view on it, as the board is
                self.tell(f"warning: {error.messages[0]}; TensorBoard does not show it")
            if not self.independent:
                self._mistakes(index)
        self.writer.flush()

    def _matrix(self, index: int) -> None:
        """The rows so far as pictures."""
        from .figures import curves_image, matrix_image

        rows = self.rows[: index + 1]
        if any(map(math.isfinite, rows[-1])):
            self._image("accuracy_matrix", matrix_image(rows, self.tasks, self.learned), index)
            self._image("accuracy_by_task", curves_image(rows, self.tasks, self.learned), index)

    def _steps(self, curve: Sequence[float], answered: Sequence[float]) -> None:
        """Loss and accuracy of the steps of a task; earlier versions measured only the loss."""
        for loss, share in zip(curve, answered or [math.nan] * len(curve), strict=True):
            self.steps += 1
            self.writer.add_scalar("train/loss", loss, self.steps)
            if math.isfinite(share):
                self.writer.add_scalar("train/accuracy", share, self.steps)

    def _finish(self) -> None:
        from torch.utils.tensorboard.summary import hparams

        metrics_of = {f"stream/{name}": 0.0 for name in _HEADLINES}
        metrics_of |= {tag: 0.0 for tag in self.last if tag.startswith(_RETENTIONS)}
        # TensorBoard takes the columns of the table from any one run: they must be the same in all.
        columns, _, _ = hparams({name: kind() for name, kind in COLUMNS.items()}, metrics_of)
        _, begun, ended = hparams(table_row(self.config), {})
        for part in (columns, begun, ended):
            self.writer.file_writer.add_summary(part)
        if len(self.tasks) > LEGIBLE and any(map(math.isfinite, self.rows[-1])):
            self._numbers(len(self.tasks))  # a matrix a task would grow with the cube of the tasks
        self.writer.flush()

    def _numbers(self, index: int) -> None:
        """The matrix and the headlines in figures; the tag is the first of the alphabet."""
        told = {name: self.last.get(f"stream/{name}", math.nan) for name in _HEADLINES}
        kept = {name: self.last.get(f"retention/{self.tags[name]}", math.nan) for name in self.zero_shot[0]}
        text = numbers_text(self.rows, self.zero_shot, self.tasks, self.learned, told, kept, self.captioned)
        self.writer.add_text("accuracy", text, index)

    def _norms(self, geometry: Mapping[str, dict[str, Any]], index: int) -> None:
        """How far every layer moved, and every parameter outside of them: embeddings that are trained whole
        move most."""
        found = defaultdict(list)
        for name, figures in geometry.items():
            at, norm = place_of(name), figures.get("delta_norm")
            if norm is not None and math.isfinite(norm):
                found[f"{at.tower}.{at.layer if at.blocks else at.kind}"].append(norm)
        for part, norms in found.items():
            self.writer.add_scalar(f"norm/{part}", math.hypot(*norms), index)

    def _recalls(self, retrieval: Retrieval, index: int) -> None:
        """R@k of every retrieval set and direction, and the points of R@1 that are kept."""
        if not index:
            self.retrieval = retrieval
        for name, both in retrieval.items():
            for direction, shares in both.items():
                tag = f"{self.tags[name]}/{direction}"
                scalars = {f"retrieval/{tag}/{k.replace('@', '')}": value for k, value in shares.items()}
                if name not in self.tasks:  # what a task has learned is nothing that could be retained
                    kept = f"retrieval_retention/{tag}"
                    scalars[kept] = self._retained(kept, shares["R@1"])
                self._finite(scalars, index)

    def _precisions(self, precisions: Mapping[str, dict[str, float]], index: int) -> None:
        """mAP of every multi-label set by every scorer, and the points of it that are kept."""
        for name, found in precisions.items():
            tag = self.tags[name]
            scalars = {f"multi_label/{tag}/{key}": value for key, value in found.items()}
            kept = f"multi_label_retention/{tag}"
            self._finite(scalars | {kept: self._retained(kept, found["mAP"])}, index)

    def _retained(self, tag: str, value: float) -> float:
        """Points of it that are kept so far, as in results.json; of independent models their mean."""
        values = self.measured[tag]
        values.append(value)
        several = self.independent and len(values) > 1
        return metrics.mean_retention(values) if several else metrics.retention(values)

    def _finite(self, scalars: Mapping[str, float], index: int) -> None:
        """Write what is a number."""
        for scalar, value in scalars.items():
            if math.isfinite(value):
                self.writer.add_scalar(scalar, value, index)
                self.last[scalar] = value

    def _stream(self, index: int) -> Iterator[tuple[str, float]]:
        """Numbers of the tasks learned so far."""
        if self.independent:
            yield "stream/last", metrics.of_independent(self.rows)["last"]
            return
        if self.at_once:
            # Every state has learned all tasks, so it is told what the stream ends with; none is unseen.
            summary = metrics.so_far([self.rows[0], *[self.rows[-1]] * len(self.tasks)])
            yield from ((f"stream/{name}", summary[name]) for name in _HEADLINES if name != "transfer")
            return
        summary = metrics.so_far(self.rows)
        yield from ((f"stream/{name}", summary[name]) for name in _HEADLINES)
        if math.isfinite(summary["last"]):
            trained = [row[:index] for row in self.rows]
            told = zip(
                self.tasks, metrics.forgetting(trained), metrics.backward_transfer(trained), strict=False
            )
            for task, forgotten, moved in told:
                yield f"forgetting/{self.tags[task]}", forgotten
                yield f"bwt/{self.tags[task]}", moved

    def _analysis(self, found: dict[str, Any], index: int) -> None:
        for task, value in found.get("cka", {}).items():
            if value is not None:
                self.writer.add_scalar(f"feature_similarity/{self.tags[task]}", value, index)
        matrices = found.get("matrices")
        if not matrices:
            return
        for tag, value in by_layer(matrices):
            self.writer.add_scalar(tag, value, index)
        shared = defaultdict(list)
        for figures in matrices.values():
            for task, share in figures["overlap_with"].items():
                shared[task].append(share)
        for task, shares in shared.items():
            self.writer.add_scalar(f"overlap_with/{self.tags[task]}", sum(shares) / len(shares), index)
        from .figures import layers_image, spectra_image

        self._image("geometry/spectra", spectra_image(matrices), index)
        self._image("geometry/layers", layers_image(matrices, _MAPS), index)

    def _mistakes(self, index: int) -> None:
        """The most confident new mistakes on earlier tasks."""
        found: list[tuple[str, Mistake]] = []
        # What a task of captions is asked has no one class as its answer.
        for task in [name for name in self.tasks[: index - 1] if name not in self.retrieval]:
            try:
                found += [
                    (task, one) for one in changes(self.folder, self.config, task, index - 1, index).mistakes
                ]
            except UserError:  # answers that were not kept, or are damaged
                continue
        worst = sorted(found, key=lambda pair: (-pair[1].share, pair[0], pair[1].position))[:MISTAKES]
        if worst:
            import torch

            from .figures import mistakes_image

            pictures = torch.cat([self.pictures(task, [one.position]) for task, one in worst])
            self._image("mistakes/newly_wrong", mistakes_image(worst, pictures), index)

    def _image(self, tag: str, picture, index: int) -> None:
        self.writer.add_image(tag, picture, index, dataformats="HWC")
