"""Runs for scripts and notebooks: made, loaded, and shown."""

from __future__ import annotations

import html
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UserError
from . import arguments
from .wording import callers_words, overrides_of

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from ..analysis.paired import PairedChanges
    from ..finished.predict import Prediction
    from ..progress import Progress
    from .table import LabelledTable

Settings = Mapping[str, Any] | Sequence[str] | None
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
        set ``retention_<set>`` with ``…_low``, ``…_high`` and ``…_p``, are paired by test image.
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
            UserError: for another drawing, and for zero-shot sets where there are none.
        """
        if what not in DRAWINGS:
            raise UserError(f"plot({what!r}): must be one of {', '.join(map(repr, DRAWINGS))}")
        if what == "zero_shot" and not self.zero_shot_sets:
            raise UserError(f"plot({what!r}): scenario '{self.results['scenario']}' has no zero-shot sets")
        from ..config.recorded import learning_states
        from ..report import plots
        from ..store.folder import RunDir

        if what == "zero_shot":
            return plots.zero_shot_plot(self.results["zero_shot"], self._name())
        draw = plots.curves_plot if what == "curves" else plots.matrix_plot
        rows = [[math.nan if v is None else v for v in row] for row in self.results["accuracy"]]
        learned = learning_states(RunDir(self.folder).read_config(), len(self.tasks))
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
        after: str | int | None = None,
    ) -> list[Prediction]:
        """Classify pictures with the run's model, as ``cl-complora predict`` does; what it would note is
        warned of.

        Args:
            pictures: a file, a folder of them, or several of these.
            classes: names of your own, which their texts answer; the classes of all tasks by default.
            task: classes of this task or zero-shot set instead.
            prompts: templates such as ``a photo of a {}``; the scenario's by default.
            top: classes to name for every picture, likeliest first.
            after: state after this task (name or number; 0: untouched); the last by default.

        Returns:
            For every picture its ``path`` and ``classes``, pairs of name and probability; or ``error``, why
            it cannot be read.

        Raises:
            UserError: for a path that is not there, an unknown task, classes beside a task, and weights that
                are gone or have changed.
        """
        from ..finished import predict
        from ..finished.states import open_run

        with callers_words():
            names, templates = arguments.texts("classes", classes), arguments.texts("prompts", prompts)
            if names and task is not None:
                raise UserError("classes and task: give one of the two")
            top, after = arguments.whole("top", top, 1), _state(after)
            given = [pictures] if isinstance(pictures, str | Path) else arguments.listed(pictures)
            if not given:
                raise arguments.refused("pictures", "a path, or a list of paths", pictures)
            files = predict.pictures([arguments.path("pictures", one) for one in given], _warn)
            state = open_run(self.folder, after, task=task)
            if after is None and (whose := predict.whose_model(state, task)):
                _warn(whose)
            space = predict.label_space(state, names, templates, task)
            head = predict.answering(state, names, task)
            return list(predict.predict(state, files, space, top, head=head, tell=_warn))

    def export(
        self, output: str | Path = "model.safetensors", *, after: str | int | None = None, half: bool = False
    ) -> list[Path]:
        """Write the run's merged weights as a plain open_clip checkpoint, with its model config and a snippet
        beside it, as ``cl-complora export`` does.

        Args:
            output: the file, ``….safetensors``.
            after: as for :meth:`predict`.
            half: 16-bit floats instead of 32.

        Returns:
            The files; ``classifier.safetensors`` among them where heads answer for the tasks, which an
            open_clip checkpoint cannot hold.

        Raises:
            UserError: where something else is there under the name, and for weights that are gone or have
                changed.
        """
        from ..finished.export import export
        from ..finished.states import open_run

        with callers_words():
            place, half = arguments.path("output", output), arguments.flag("half", half)
            return export(open_run(self.folder, _state(after)), place, half)

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


def run(
    scenario: str | Path = "embedded",
    strategy: str | Path = "complora",
    seed: int = 0,
    settings: Settings = None,
    *,
    out: str | Path = "runs",
    device: str = "auto",
    fresh: bool = False,
    progress: Progress | bool | None = None,
    evaluate: bool = True,
    analysis: bool = True,
    allow_plugins: bool = False,
    variant: str = "",
    save_every: float = 60.0,
    log: Sequence[str] = (),
    elsewhere: bool = False,
) -> Run:
    """Run a scenario with a strategy, or go on with a run that was cut off, or read one that is done.

    Args:
        scenario: name of a shipped scenario (``cl-complora list scenarios``), or path of a YAML file.
        strategy: name of a shipped strategy, or path of a YAML file.
        seed: of shots, order, initialisation and augmentation.
        settings: what differs from the files: ``{"training.steps": 40}``, ``{"training": {"steps": 40}}``, or
            texts such as ``"training.steps=40"``.
        out: folder of all runs.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        fresh: set an existing run aside and start over.
        progress: True shows what happens; or an object that is told
            (:class:`cl_complora.progress.Progress`).
        evaluate: False trains without measuring.
        analysis: whether to follow what every task does to the weights and to the features of earlier ones.
        allow_plugins: whether the strategy may name Python code of your own.
        variant: keeps runs of one strategy with other settings apart: a folder of that name within the
            strategy's.
        save_every: seconds between two states within a task that an interrupted run can go on from.
        log: trackers that are told what TensorBoard is: ``wandb``, ``mlflow``, ``trackio``.
        elsewhere: go on with an interrupted run although device, GPU or versions are others.

    Returns:
        The finished run.

    Raises:
        UserError: for input that cannot work, or a run in the same folder that was made with other settings.
    """
    with callers_words():
        from ..config import load_scenario, load_strategy
        from ..config.loading import split_overrides
        from ..config.model_names import check_model
        from ..errors import raise_all

        options: dict[str, Any] = {
            "out": arguments.path("out", out),
            "device": arguments.device("device", device),
            "fresh": arguments.flag("fresh", fresh),
            "evaluate": arguments.flag("evaluate", evaluate),
            "allow_plugins": arguments.flag("allow_plugins", allow_plugins),
            "variant": arguments.text("variant", variant),
            "analysis": arguments.flag("analysis", analysis),
            "save_every": arguments.seconds("save_every", save_every),
            "elsewhere": arguments.flag("elsewhere", elsewhere),
            "log": arguments.texts("log", log),
        }
        told = arguments.shown_by(progress)
        seed = arguments.seed("seed", seed)
        for_scenario, for_strategy = split_overrides(overrides_of(settings))
        located = load_scenario(arguments.named(scenario, "scenario"), for_scenario)
        chosen = load_strategy(arguments.named(strategy, "strategy"), for_strategy)
        raise_all(check_model(located))

        from ..run.stream import run as run_one

        if told is True:
            from rich.console import Console

            from ..progress import display

            with display(Console()) as shown:
                made = run_one(located, chosen, seed, progress=shown, **options)
        else:
            made = run_one(located, chosen, seed, progress=told or None, **options)
    return Run(made.results, made.folder, made.seconds, made.reused)


def load_run(folder: str | Path) -> Run:
    """A run that is there already, finished or not.

    Args:
        folder: of the run, such as ``runs/embedded/complora/seed0``.

    Raises:
        UserError: if there is no run, or it is damaged.
    """
    from ..store.folder import RunDir
    from ..store.loaded_run import load_run as load

    with callers_words():
        place = arguments.path("folder", folder)
        if not place.is_dir():
            raise UserError(
                f"{place}: there is no such folder; give a run's, such as runs/embedded/complora/seed0"
            )
        return Run(load(RunDir(place)).results, place)


def _state(after: object) -> str | None:
    """A task's name or number as the command line has it."""
    return after if after is None or isinstance(after, str) else str(arguments.whole("after", after, 0))


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=3)


def _percent(value: float | None) -> float:
    return math.nan if value is None else 100 * value


def _shown(value: float, unit: str, signed: bool = False) -> str:
    return "–" if math.isnan(value) else f"{value:{'+' if signed else ''}.1f} {unit}"
