"""The report of a comparison: the tables that the terminal shows, as drawings too, with what was run and
how."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...version import __version__
from ..elements import (
    NOTHING,
    Cell,
    Code,
    Figure,
    Fold,
    Gallery,
    Notice,
    Page,
    Section,
    Table,
    Terms,
    Text,
    number,
)
from ..reproduce import compare_command, compared_settings
from .figures import MOST_NAMES, MOST_NUMBERS, Paired, Tested, differences, sweep_curve, trade_off
from .made_with import has_plugin, runs_facts, software
from .members import REPORT, address, members, run_folder
from .over_stream import over_stream
from .tables import METRICS, Content, chosen, failures, how_chosen, kept, plus_minus, spread, tables, whole

# Metrics whose differences are drawn; the table has all of them.
_DRAWN = ("last", "forgetting", "retention")
# More names than this are counted in the summary instead of listed.
MOST_LISTED = 8


def comparison_page(found: Content, folder: Path, target: Path) -> Page:
    """All that a comparison found, on one page.

    Args:
        found: content of comparison.json.
        folder: where it lies, with the runs below it.
        target: the file that the page becomes, which addresses start from.
    """
    request = found["request"]
    made = {title: _signed(table) for title, table in tables(found).items()}
    facts = {
        "Methods": str(len(found["methods"])),
        "Seeds": ", ".join(map(str, request["seeds"])),
        "Compared with": str(found["reference"]),
        **runs_facts(found, folder),
    }
    changed = compared_settings(request)
    facts |= {"Changed by --set": ", ".join(changed)} if changed else {}
    sections = [
        Section("summary", "In short", _summary(found)),
        Section("trade-off", "Trade-off: accuracy against retention", _trade_off(found)),
        Section(
            "accuracy",
            "Results of every method",
            [made[title] for title in ("Accuracy", "By shots") if title in made],
        ),
        Section("stream", "Over the stream", over_stream(found, folder)),
        Section(
            "tasks",
            "Task by task",
            [made[title] for title in ("Last by task", "Change by task") if title in made],
        ),
        Section("differences", "Is the difference real?", _differences(found, made)),
        Section("sweep", "How the settings were chosen", _sweep(found, made)),
        Section("updates", "How far the weights moved", [made["Updates"]] if "Updates" in made else []),
        Section("budget", "What it costs", [made["Budget"]] if "Budget" in made else []),
        Section("runs", "The runs", _runs(found, folder, target)),
        Section("origin", "How to repeat it", _origin(found, folder)),
    ]
    return Page(
        str(found["scenario"]), "comparison", facts, sections, f"cl_complora {__version__} · {folder}"
    )


def _signed(table: Table) -> Table:
    """The table with minus signs instead of hyphens in its numbers."""
    rows = [
        [replace(cell, text=cell.text.replace("-", "−")) if cell.value is not None else cell for cell in row]
        for row in table.rows
    ]
    head = [name.replace("≥ -", "≥ −") for name in table.head]
    return Table(table.caption, head, rows, table.note)


def tested(methods: Iterable[Mapping[str, Any]]) -> list[Tested]:
    """Methods with both figures of the trade.

    Args:
        methods: each with ``name`` and ``figures``, and ``front`` where it is known who is on it.
    """
    found = []
    for m in methods:
        retention, last = (whole(m["figures"].get(key)) for key in ("retention", "last"))
        if retention and last:
            means = (float(np.mean(retention)), float(np.mean(last)))
            spreads = (spread(retention), spread(last))
            found.append(Tested(m["name"], *means, *spreads, m.get("front")))
    return found


def _summary(found: Content) -> list:
    said = []
    ends = {m["name"]: whole(m["figures"].get("last")) for m in found["methods"].values()}
    ends = {name: values for name, values in ends.items() if values}
    if len(ends) > 1:
        means = {name: float(np.mean(values)) for name, values in ends.items()}
        best = [name for name, mean in means.items() if f"{mean:.1f}" == f"{max(means.values()):.1f}"]
        told = f"{means[best[0]]:.1f}{plus_minus(ends[best[0]]) if len(best) == 1 else ''} %"
        who = _listed(best) if len(best) <= MOST_LISTED else f"{len(best)} of {len(ends)} methods"
        verb = "ends" if len(best) == 1 else "end"
        said.append(f"{who} {verb} with the highest accuracy, {told} on average over the tasks.")
    for verdict in ("better", "worse"):
        names = [m["name"] for m in found["methods"].values() if _verdict(m, "last") == verdict]
        if names:
            told = (
                _listed(names)
                if len(names) <= MOST_LISTED
                else f"{len(names)} of {len(found['methods'])} methods"
            )
            verb = "is" if len(names) == 1 else "are"
            said.append(
                f"In Last, interval and test agree that {told} {verb} {verdict} than {found['reference']}."
            )
    blocks: list = [Text([" ".join(said)])] if said else []
    blocks.append(Text([how_chosen(found) or _as_given(found)]))
    changed = compared_settings(found["request"])
    if changed:
        blocks.append(Text([f"Changed for all methods by --set: {', '.join(changed)}."]))
    failed = failures(found)
    if failed:
        blocks.insert(0, Notice([f"Failed: {failure}" for failure in failed]))
    return blocks


def _as_given(found: Content) -> str:
    but = ", but for what was changed for all" if found["request"]["strategy_settings"] else ""
    return f"Every method was run with the settings of its own file{but}; nothing was swept."


def _verdict(method: dict[str, Any], metric: str) -> str | None:
    return (method["differences"].get(metric) or {}).get("verdict")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]


def _trade_off(found: Content) -> list:
    methods = tested(found["methods"].values())
    if not methods:
        return []
    note = (
        "Last against retention on test images, means with standard deviations over seeds. Filled and joined:"
        " methods that no other one equals in both and beats in one."
    )
    if MOST_NAMES < len(methods) <= MOST_NUMBERS:
        note += f" {', '.join(f'{place}: {m.name}' for place, m in enumerate(methods, start=1))}."
    return [Gallery([Figure("Last against retention", trade_off(methods, "trade-off"))], "wide", note)]


def _differences(found: Content, made: dict[str, Table]) -> list:
    if "Paired differences" not in made:
        return []
    drawn = []
    for metric in _DRAWN:
        rows = [
            Paired(m["name"], d["mean"], d["low"], d["high"], d["verdict"])
            for m in found["methods"].values()
            if (d := m["differences"].get(metric)) is not None
        ]
        if rows:
            svg = differences(rows, METRICS[metric], str(found["reference"]), f"difference-{metric}")
            better = "less is better" if metric == "forgetting" else "more is better"
            drawn.append(Figure(f"{METRICS[metric]} ({better})", svg))
    note = (
        "Mean difference with its 95 % interval. Filled ▲: better, filled ▼: worse, both only where interval"
        " and test agree; empty circle: not shown; empty square: too few pairs for any test."
    )
    return [Gallery(drawn, "middle", note), made["Paired differences"]]


def _sweep(found: Content, made: dict[str, Table]) -> list:
    if "Sweep" not in made:
        return []
    curves = {
        m["name"]: [
            {**p, "chosen": p["settings"] == m["chosen"]}
            for p in m["curve"]
            if p["error"] is None and np.isfinite(kept(p["retention"]))
        ]
        for m in found["methods"].values()
    }
    curves = {name: points for name, points in curves.items() if points}
    drawn = [Figure(name, sweep_curve(name, curves, f"sweep-{place}")) for place, name in enumerate(curves)]
    note = (
        "Every swept value on validation shots: Last (%, upwards) against retention (points, to the right),"
        " before those of the other methods; ringed: chosen; joined: what the method itself does not beat."
    )
    blocks: list = [Gallery(drawn, "small", note)] if drawn else []
    blocks += [made["At equal retention"]] if "At equal retention" in made else []
    return [*blocks, Fold("Every swept value", [made["Sweep"]])]


def _runs(found: Content, folder: Path, target: Path) -> list:
    rows = []
    for m in found["methods"].values():
        for place, seed in enumerate(found["request"]["seeds"]):
            where = run_folder(found, folder, m, seed)
            told = Cell("not found")
            if where:
                told = Cell(str(where.relative_to(folder)), link=f"{address(where, target)}/")
            page = where / REPORT if where else None
            view = Cell("report", link=address(page, target)) if page and page.is_file() else Cell(NOTHING)
            figures = [_at(m["figures"].get(key), place) for key in ("last", "forgetting", "retention")]
            cells = [number(figures[0]), number(figures[1]), number(figures[2], 1, signed=True)]
            rows.append([Cell(m["name"]), number(seed, 0), view, Cell(chosen(m) or NOTHING), *cells, told])
    head = ["method", "seed", "report", "chosen", "Last", "forgetting", "retention", "folder"]
    note = "Every tested run. cl-complora report --runs and the comparison's folder writes their reports."
    return [Fold(f"All {len(rows)} runs, with their reports and folders", [Table("Runs", head, rows, note)])]


def _at(values: Sequence[float | None] | None, place: int) -> float | None:
    return values[place] if values and place < len(values) else None


def _origin(found: Content, folder: Path) -> list:
    runs = list(members(found, folder))
    plugins = any(has_plugin(run) for run in runs)
    blocks: list = [
        Code("Compare again", compare_command(found["request"], folder, plugins)),
        Code("Write this report again", shlex.join(["cl-complora", "report", str(folder)])),
    ]
    for where in runs:
        if told := software(where):
            return [*blocks, Terms(told)]
    return blocks
