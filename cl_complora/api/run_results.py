"""A run for scripts and notebooks: its numbers, its figures and its model."""

from __future__ import annotations

import html
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UserError
from . import arguments
from .wording import callers_words, reworded

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from ..analysis.paired import PairedChanges
    from ..data.images.value_range import ValueRange
    from ..finished.predict import Prediction
    from ..finished.states import State
    from .table import LabelledTable

Drawing = Literal["curves", "matrix", "zero_shot"]
DRAWINGS = ("curves", "matrix", "zero_shot")
UNTOUCHED = "(untouched)"


@dataclass(repr=False)
class Run:
    """A run: one scenario, one strategy, one seed.

    Attributes:
        results: content of results.json: fractions for accuracies, forgetting and BWT, points for retention
            (``results["units"]``); None where a number is not defined.
        folder: the run's folder.
        seconds: time that the call took which made it; 0 of a loaded run.
        reused: number of tasks that were found finished.
    """

    results: dict[str, Any]
    folder: Path
    seconds: float = 0.0
    reused: int = 0
    _paired: PairedChanges | None = field(default=None, init=False, compare=False)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in the order of the stream."""
        return list(self.results["tasks"])

    @property
    def zero_shot_sets(self) -> list[str]:
        """Names of the sets that are measured but never trained on."""
        return list(self.results["zero_shot_sets"])

    @property
    def matrix(self) -> LabelledTable:
        """Accuracy in percent after every task (rows) on every task and zero-shot set (columns)."""
        from .table import LabelledTable

        told = self.results
        curves = [told["zero_shot"][name] for name in self.zero_shot_sets]
        values = [
            [_percent(value) for value in (*row, *(curve[state] for curve in curves))]
            for state, row in enumerate(told["accuracy"])
        ]
        rows = [UNTOUCHED, *self.tasks][: len(values)]
        return LabelledTable(values, rows, [*self.tasks, *self.zero_shot_sets])

    @property
    def paired(self) -> PairedChanges:
        """What changed on the same test images, with 95 % intervals and McNemar's test, as far as the answers
        were recorded."""
        if self._paired is None:
            from ..analysis.paired import paired_changes
            from ..store.folder import RunDir

            self._paired = paired_changes(RunDir(self.folder), self.results)
        return self._paired

    def summary(self) -> dict[str, Any]:
        """One flat row of what the run found, in percent and points; rows of several runs make a frame.

        Keys: ``scenario``, ``strategy``, ``seed``; ``transfer``, ``average``, ``last`` (%), ``forgetting``,
        ``bwt``, ``retention`` (points, the mean over the sets). ``bwt_low`` and ``bwt_high``, and for each
        set ``retention_<set>`` with ``…_low``, ``…_high`` and ``…_p``, are paired by test image; they are
        there where the answers tell them, those of ``bwt`` where an earlier task can have changed.
        """
        told = self.results
        row: dict[str, Any] = {key: told[key] for key in ("scenario", "strategy", "seed")}
        for key in ("transfer", "average", "last", "forgetting", "bwt"):
            row[key] = _percent(told.get(key))
        moved = self.paired.bwt(len(told["accuracy"]) - 2)
        if moved is not None:
            row |= {"bwt_low": 100 * moved[1], "bwt_high": 100 * moved[2]}
        known = [value for value in told["retention"].values() if value is not None]
        row["retention"] = sum(known) / len(known) if known else math.nan
        for name, points in told["retention"].items():
            row[f"retention_{name}"] = math.nan if points is None else points
            if (change := self.paired.sets.get(name)) is not None:
                row |= {
                    f"retention_{name}_low": 100 * change.low,
                    f"retention_{name}_high": 100 * change.high,
                    f"retention_{name}_p": change.p,
                }
        return row

    def to_frame(self) -> pandas.DataFrame:
        """A tidy pandas frame: one row for every state and set, accuracy in percent.

        Columns: ``scenario``, ``strategy``, ``seed``, ``state`` (number of tasks learned), ``after``,
        ``set``, ``kind`` (``task`` or ``zero_shot``), ``accuracy``. Frames of several runs can be
        concatenated.

        Raises:
            UserError: if pandas is not installed.
        """
        from .table import pandas_or_error

        pandas = pandas_or_error("to_frame()")
        matrix = self.matrix
        kinds = ["task"] * len(self.tasks) + ["zero_shot"] * len(self.zero_shot_sets)
        same = {key: self.results[key] for key in ("scenario", "strategy", "seed")}
        rows = [
            {**same, "state": state, "after": after, "set": name, "kind": kind, "accuracy": value}
            for state, (after, values) in enumerate(zip(matrix.rows, matrix.values, strict=True))
            for name, kind, value in zip(matrix.columns, kinds, values, strict=True)
        ]
        columns = [*same, "state", "after", "set", "kind", "accuracy"]
        return pandas.DataFrame(rows, columns=columns)

    def plot(self, what: Drawing = "curves") -> Figure:
        """A matplotlib figure.

        Args:
            what: ``curves`` (accuracy on every task over the stream), ``matrix`` (a heat map) or
                ``zero_shot`` (accuracy on the zero-shot sets over the stream).

        Raises:
            UserError: for another drawing, for zero-shot sets where there are none, and for a run of which
                nothing has been measured yet.
        """
        if what not in DRAWINGS:
            raise UserError(f"plot({what!r}): must be one of {', '.join(map(repr, DRAWINGS))}")
        if what == "zero_shot" and not self.zero_shot_sets:
            raise UserError(f"plot({what!r}): scenario '{self.results['scenario']}' has no zero-shot sets")
        if not self.results["accuracy"]:
            raise UserError(f"plot({what!r}): nothing of this run has been measured yet")
        from ..report import plots
        from ..store.folder import RunDir

        if what == "zero_shot":
            return plots.zero_shot_plot(self.results["zero_shot"], self._name())
        draw = plots.curves_plot if what == "curves" else plots.matrix_plot
        rows = [[math.nan if v is None else v for v in row] for row in self.results["accuracy"]]
        learned = RunDir(self.folder).learned_in(len(self.tasks))
        return draw(rows, self.tasks, learned, self._name())

    def report(self, output: str | Path | None = None) -> Path:
        """Write the run as one HTML file and return its path.

        Args:
            output: the file; ``report.html`` in the run's folder by default.
        """
        from ..report.html import write_report

        with callers_words():
            return write_report(self.folder, None if output is None else arguments.path("output", output))

    def predict(
        self,
        pictures: str | Path | Sequence[str | Path],
        classes: Sequence[str] = (),
        *,
        task: str | None = None,
        prompts: Sequence[str] = (),
        top: int = 5,
        value_range: int | tuple[float, float] | None = None,
        after: str | int | None = None,
        pretrained: str | Path | None = None,
        config: str | Path | None = None,
    ) -> list[Prediction]:
        """Classify pictures with the run's model, as ``cl-complora predict`` does; its notes are warnings.

        Args:
            pictures: a file, a folder of them, or several of these.
            classes: names of your own, which their texts answer; the classes of all tasks by default.
            task: classes of this task or zero-shot set instead.
            prompts: templates such as ``a photo of a {}``; the scenario's by default.
            top: classes to name for every picture, likeliest first.
            value_range: stored values that become black and white, of pictures of more than 8 bits a channel:
                ``12`` bits, or ``(0, 4095)``; by default those that the run learned with, unless the pictures
                have quite others.
            after: state after this task (name or number; 0: untouched); the last by default.
            pretrained: the weights that the run began with, where they were moved.
            config: the model config that it began with, where that was moved.

        Returns:
            For every picture its ``path`` and ``classes``, pairs of name and probability; or ``error``, why
            it cannot be read.

        Raises:
            UserError: for a path that is not there, an unknown task, classes beside a task, and weights that
                are gone or have changed.
        """
        from ..finished.predict import Question, classify

        notes: list[str] = []
        with callers_words():
            question = Question(
                arguments.names("classes", classes),
                None if task is None else arguments.text("task", task),
                arguments.texts("prompts", prompts),
                arguments.whole("top", top, 1),
                None if value_range is None else _values(value_range),
            )
            given = [pictures] if isinstance(pictures, str | Path) else arguments.listed(pictures)
            if not given:
                raise arguments.refused("pictures", "a path, or a list of paths", pictures)
            paths = [arguments.path("pictures", one) for one in given]
            opened = partial(self._state, after, pretrained, config, question.task)
            found = list(classify(opened, paths, question, after is None, notes.append))
        # Not before: whoever decodes a picture hears no warnings.
        for note in dict.fromkeys(notes):
            warnings.warn(reworded(note), stacklevel=2)
        return found

    def export(
        self,
        output: str | Path = "model.safetensors",
        *,
        after: str | int | None = None,
        half: bool = False,
        pretrained: str | Path | None = None,
        config: str | Path | None = None,
    ) -> list[Path]:
        """Write the run's merged weights as a plain open_clip checkpoint, with its model config and a snippet
        beside it, as ``cl-complora export`` does.

        Args:
            output: the file, ``….safetensors``.
            after, pretrained, config: as for :meth:`predict`.
            half: 16-bit floats instead of 32.

        Returns:
            The files; ``classifier.safetensors`` among them where heads answer for the tasks, which an
            open_clip checkpoint cannot hold.

        Raises:
            UserError: where something else is there under the name, and for weights that are gone or have
                changed. What the command would note is a warning.
        """
        from ..finished.export import export
        from ..finished.head_export import about_heads
        from ..finished.predict import unfinished

        with callers_words():
            place, half = arguments.path("output", output), arguments.flag("half", half)
            state = self._state(after, pretrained, config)
            files = export(state, place, half)
        for note in (unfinished(state) if after is None else None, about_heads(files)):
            if note:
                warnings.warn(reworded(note), stacklevel=2)
        return files

    def _state(self, after: object, pretrained: object, config: object, task: str | None = None) -> State:
        """A state of the run with its merged weights; arguments as :meth:`predict` takes them."""
        from ..finished.states import open_run

        if after is not None and not isinstance(after, str):
            after = str(arguments.whole("after", after, 0))
        given = {"pretrained": pretrained, "config": config}
        moved = [None if one is None else str(arguments.path(name, one)) for name, one in given.items()]
        return open_run(self.folder, after, None, *moved, task)

    def _name(self) -> str:
        told = self.results
        return f"{told['scenario']} · {told['strategy']} · seed {told['seed']}"

    def _headlines(self) -> list[tuple[str, str]]:
        row = self.summary()
        told = [(key.capitalize(), _shown(row[key], "%")) for key in ("last", "average", "transfer")]
        told.append(("Forgetting", _shown(row["forgetting"], "points")))
        for name in self.zero_shot_sets:
            key = f"retention_{name}"
            shown = _shown(row[key], "points", signed=True)
            if f"{key}_low" in row and shown != "–":
                shown += f" [{row[key + '_low']:+.1f}, {row[key + '_high']:+.1f}]"
            told.append((f"Retention {name}", shown))
        return told

    def __repr__(self) -> str:
        done = "" if self.results["status"] == "done" else " (not finished)"
        told = ", ".join(f"{name} {value}" for name, value in self._headlines() if value != "–")
        return f"<Run {self._name()}{done}: {told}; {self.folder}>"

    def _repr_html_(self) -> str:
        told = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in self._headlines()
        )
        return (
            f"<p><b>{html.escape(self._name())}</b><br><code>{html.escape(str(self.folder))}</code></p>"
            f"<table><tbody>{told}</tbody></table><p>Accuracy in % after every task</p>"
            f"{self.matrix._repr_html_()}"
        )


def _values(given: object) -> ValueRange:
    """A range of stored values, from bits or from two values."""
    from ..data.images.value_range import given_range

    numbers = [given] if isinstance(given, Real) else arguments.listed(given)
    if numbers is None:
        raise arguments.refused("value_range", "a number of bits, or two values such as (0, 4095)", given)
    return given_range(",".join(str(arguments.number("value_range", one)) for one in numbers))


def _percent(value: float | None) -> float:
    return math.nan if value is None else 100 * value


def _shown(value: float, unit: str, signed: bool = False) -> str:
    return "–" if math.isnan(value) else f"{value:{'+' if signed else ''}.1f} {unit}"
