"""Comparisons for scripts and notebooks: made, loaded, and shown."""

from __future__ import annotations

import html
import math
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compare.trial_words import words_of
from ..errors import UserError
from . import arguments
from .running import Settings
from .wording import callers_words, overrides_of, reworded

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from .table import LabelledTable


@dataclass(repr=False)
class ComparedMethods:
    """Several strategies on one scenario, each with every seed.

    Attributes:
        content: all that was found, as comparison.json holds it; failures name arguments and no options.
        folder: where the tables, figures and the report lie.
    """

    content: dict[str, Any]
    folder: Path

    @property
    def methods(self) -> list[str]:
        """Names of the strategies."""
        return list(self.content["methods"])

    @property
    def matrix(self) -> LabelledTable:
        """Means over seeds: a row for every method, a column for every metric, in percent or points."""
        from .table import LabelledTable

        metrics = list(dict.fromkeys(key for m in self.content["methods"].values() for key in m["figures"]))
        values = [[row.get(metric, math.nan) for metric in metrics] for row in self.summary().values()]
        return LabelledTable(values, self.methods, metrics, corner="method")

    def summary(self) -> dict[str, dict[str, float]]:
        """Method → metric → mean over seeds (percent or points), and what is different from the reference.

        A method other than the reference also has ``<metric>_difference``, ``…_low``, ``…_high``, ``…_p`` and
        ``…_verdict`` (``better``, ``worse``, ``not shown`` or ``too few pairs``).
        """
        found: dict[str, dict[str, Any]] = {}
        for name, method in self.content["methods"].items():
            row: dict[str, Any] = {metric: _mean(values) for metric, values in method["figures"].items()}
            for metric, told in method["differences"].items():
                row |= {f"{metric}_difference": told["mean"]}
                row |= {f"{metric}_{key}": told[key] for key in ("low", "high", "p", "verdict")}
            found[name] = row
        return found

    def to_frame(self) -> pandas.DataFrame:
        """A tidy pandas frame: ``method``, ``seed``, ``metric``, ``value`` (percent or points).

        Raises:
            UserError: if pandas is not installed.
        """
        from .table import pandas_or_error

        pandas = pandas_or_error("to_frame()")
        rows = [
            {"method": name, "seed": seed, "metric": metric, "value": value}
            for name, method in self.content["methods"].items()
            for metric, values in method["figures"].items()
            for seed, value in zip(self.content["request"]["seeds"], values, strict=True)
        ]
        return pandas.DataFrame(rows, columns=["method", "seed", "metric", "value"])

    def plot(self) -> Figure:
        """A matplotlib figure: accuracy after the stream against retention."""
        from ..report.plots import trade_off_plot

        return trade_off_plot(self.content)

    def report(self, output: str | Path | None = None) -> Path:
        """Write the comparison as one HTML file and return its path.

        Args:
            output: the file; ``report.html`` in the comparison's folder by default.
        """
        from ..report.html import write_report

        with callers_words():
            return write_report(self.folder, None if output is None else arguments.path("output", output))

    def _name(self) -> str:
        seeds = ", ".join(map(str, self.content["request"]["seeds"]))
        return f"{self.content['scenario']}: {len(self.methods)} methods, seeds {seeds}"

    def __repr__(self) -> str:
        failed = [name for name, m in self.content["methods"].items() if m["failed"]]
        told = "".join(f"\nnot finished: {name}" for name in failed)
        return f"<ComparedMethods {self._name()}; {self.folder}>\n{self.matrix}{told}"

    def _repr_html_(self) -> str:
        name, place = html.escape(self._name()), html.escape(str(self.folder))
        return f"<p><b>{name}</b><br><code>{place}</code></p>{self.matrix._repr_html_()}"


def compare(
    scenario: str | Path = "embedded",
    strategies: Sequence[str | Path] = ("zeroshot", "lora", "complora"),
    seeds: Sequence[int] | None = None,
    settings: Settings = None,
    *,
    sweep: Mapping[str, Sequence[float]] | bool = False,
    sweep_seeds: Sequence[int] = (),
    metric: str | None = None,
    floor: float | None = None,
    reference: str = "",
    validation_shots: int | None = None,
    jobs: int = 1,
    out: str | Path = "runs",
    device: str = "auto",
    allow_plugins: bool = False,
    elsewhere: bool = False,
    progress: bool = False,
) -> ComparedMethods:
    """Run what is missing of several strategies on one scenario, and compare them.

    The runs are made by processes of their own: in a script, call this below
    ``if __name__ == "__main__":``.

    Args:
        scenario: name of a shipped scenario, or path of a YAML file.
        strategies: names or paths.
        seeds: of the tests (``[0, 1, 2]``), each once; the scenario's by default.
        settings: what differs from the files, for all methods (as for :func:`cl_complora.run`).
        sweep: key → values to try for every method on validation shots (``{"lr": [1e-4, 3e-4]}``); True for
            each method's own, from its file.
        sweep_seeds: of the sweep; the first of ``seeds`` by default. These and the next two, and
            ``validation_shots``, are for a sweep, and refused without one.
        metric: what a swept value is chosen by: ``last`` (the default), ``average`` or ``harmonic``.
        floor: choose among values that lose at most this (-10) of zero-shot accuracy.
        reference: strategy that differences are taken to; the first by default.
        validation_shots: images per class set apart for the sweep; the scenario's own number, or else 4.
        jobs: runs at a time; each has its share of the cores.
        out: folder of all runs.
        device, allow_plugins, elsewhere: as for :func:`cl_complora.run`.
        progress: True prints what ``cl-complora compare`` does: the plan, every run that ends, time left.

    Returns:
        What was found; the same files as those of ``cl-complora compare`` are written.

    Raises:
        UserError: for input that cannot work, before anything is run; for runs that were refused or lost, and
            if no method could be tested: then no file of an earlier comparison is touched.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(
            "compare() starts processes, which read your script again: call it below"
            ' if __name__ == "__main__":'
        )
    with callers_words(), words_of("compare"):
        from ..compare import study
        from ..compare.choosing import check_floor, known_metric
        from ..compare.compare_progress import CompareProgress
        from ..compare.sweeps import refuse_what_only_a_sweep_reads
        from ..compare.trials import SHORT_KEYS
        from ..config import load_scenario
        from ..config.model_names import check_model
        from ..config.overrides import refuse_seeds_twice, split_overrides
        from ..errors import raise_all
        from ..files import slug
        from ..report.comparison.saving import save
        from ..report.html import try_report

        methods = arguments.methods(strategies)
        tested = None if seeds is None else arguments.seeds("seeds", seeds)
        if metric is not None:
            known_metric(arguments.text("metric", metric))
        place, out = arguments.named(scenario, "scenario"), arguments.path("out", out)
        jobs, device = arguments.whole("jobs", jobs, 1), arguments.device("device", device)
        allow_plugins = arguments.flag("allow_plugins", allow_plugins)
        elsewhere = arguments.flag("elsewhere", elsewhere)
        progress = arguments.flag("progress", progress)
        asked: dict[str, Any] = {
            "sweep_seeds": arguments.seeds("sweep_seeds", sweep_seeds, may_be_none=True),
            "sweep": arguments.swept(sweep, SHORT_KEYS),
            "floor": None if floor is None else arguments.number("floor", floor),
            "reference": arguments.named(reference, "reference"),
            "validation_shots": (
                None if validation_shots is None else arguments.whole("validation_shots", validation_shots, 1)
            ),
        }
        check_floor(asked["floor"])
        if asked["sweep"] is None:
            refuse_what_only_a_sweep_reads(
                metric, asked["floor"], asked["validation_shots"], asked["sweep_seeds"]
            )
        asked["metric"] = metric or study.Request.metric
        for_scenario, for_strategy = split_overrides(overrides_of(settings))
        if tested is not None:
            refuse_seeds_twice(for_scenario)
        located = load_scenario(place, for_scenario)
        raise_all(check_model(located))
        request = study.Request(
            scenario=place,
            strategies=methods,
            seeds=tested or tuple(located.value.seeds),
            scenario_settings=tuple(for_scenario),
            strategy_settings=tuple(for_strategy),
            **asked,
        )

        told = CompareProgress(request, jobs, _say) if progress else None
        if told is not None:
            told.plan()
        found = study.compare(
            request,
            out,
            jobs,
            device,
            allow_plugins,
            told.report if told is not None else None,
            told.say if told is not None else None,
            begins=told.begins if told is not None else None,
            elsewhere=elsewhere,
        )
        content, folder = found.content(), out / slug(found.scenario)
        save(content, folder)
        try_report(folder, _say)
    return ComparedMethods(_reworded(content), folder)


def load_comparison(folder: str | Path) -> ComparedMethods:
    """A comparison that is there already.

    Args:
        folder: of the scenario's runs, such as ``runs/embedded``.

    Raises:
        UserError: if there is none, or it is damaged.
    """
    from ..report.comparison.members import load_comparison as load

    with callers_words():
        place = arguments.path("folder", folder)
        if not (place / "comparison.json").is_file():
            raise UserError(f"{place}: holds no comparison (no comparison.json)")
        return ComparedMethods(_reworded(load(place)), place)


def _say(line: str) -> None:
    print(reworded(line), flush=True)


def _reworded(content: dict[str, Any]) -> dict[str, Any]:
    """What was found, with the reasons of failures in the words of somebody who calls functions; files keep
    those of the command line."""
    methods = {}
    for name, method in content["methods"].items():
        curve = [
            {**one, "error": reworded(one["error"])} if one.get("error") else one for one in method["curve"]
        ]
        methods[name] = {**method, "failed": [reworded(why) for why in method["failed"]], "curve": curve}
    return {**content, "methods": methods}


def _mean(values: Sequence[float | None]) -> float:
    known = [math.nan if value is None else value for value in values]
    return sum(known) / len(known) if known else math.nan
