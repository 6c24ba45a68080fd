"""A comparison as tables: for the terminal, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..files import write_json, write_text
from .study import METRICS, Comparison, Method
from .trials import told

_NAMES = {
    "learned": "learned",
    "last": "Last",
    "forgetting": "forgetting",
    "average": "Average",
    "transfer": "Transfer",
    "retention": "retention",
}
# Retention that a method may lose at most, in points: the rows of the view at equal retention.
FLOORS = (-1, -2, -5, -10, -20)

Rows = list[list[str]]


def accuracy_table(found: Comparison) -> Rows:
    """Mean ± standard deviation over seeds, in percent; forgetting and retention in points."""
    rows = [["method", "chosen", *_NAMES.values()]]
    for m in found.methods:
        cells = [_spread(m.figures.get(metric), sign=metric == "retention") for metric in _NAMES]
        rows.append([m.name, told(m.chosen) or "–", *cells])
    return rows


def difference_table(found: Comparison) -> Rows:
    """Each method minus the reference."""
    rows = [[f"minus {found.reference}", *(_NAMES[metric] for metric in _NAMES)]]
    for m in found.methods:
        if m.differences:
            rows.append([m.name, *(_difference(m, metric) for metric in _NAMES)])
    return rows


def update_table(found: Comparison) -> Rows:
    """How far the weights moved a task, and where to."""
    rows = [["method", "‖ΔW‖", "of matrices", "touches principal", "in earlier", "cosine to earlier"]]
    for m in found.methods:
        values = [m.updates.get(key) for key in ("norm", "matrix_norm", "principal", "earlier", "cosine")]
        rows.append([m.name, *("–" if v is None else f"{v:.2f}" for v in values)])
    return rows


def budget_table(found: Comparison) -> Rows:
    """What a run costs."""
    rows = [["method", "steps", "trained", "deltas MB", "carried MB", "training s", "peak MB"]]
    for m in found.methods:
        b = m.budget
        if not b:
            continue
        sizes = [f"{b[key] / 1e6:.1f}" for key in ("stored_bytes", "carried_bytes")]
        costs = [f"{b['train_seconds']:.0f}", f"{b['peak_memory_bytes'] / 1e6:.0f}"]
        rows.append([m.name, f"{b['steps']:.0f}", f"{b['trainable_parameters']:,.0f}", *sizes, *costs])
    return rows


def sweep_table(found: Comparison) -> Rows:
    """Every combination that was tried, on validation shots."""
    rows = [["method", "settings", "Last", "Average", "retention", ""]]
    for m in found.methods:
        for p in m.curve:
            mark = "chosen" if tuple(p["settings"].items()) == m.chosen else ""
            if p["error"]:
                rows.append([m.name, p["told"], "–", "–", "–", p["error"]])
            else:
                values = [f"{p['last']:.1f}", f"{p['average']:.1f}", _points(p["retention"])]
                rows.append([m.name, p["told"], *values, mark])
    return rows


def floor_table(found: Comparison) -> Rows:
    """Best Last on validation shots among the swept points that lose at most so many points of retention."""
    rows = [["method", *(f"retention ≥ {floor}" for floor in FLOORS), "any"]]
    for m in found.methods:
        points = [p for p in m.curve if p["error"] is None]
        if points:
            cells = []
            for floor in (*FLOORS, -math.inf):
                eligible = [p["last"] for p in points if p["retention"] >= floor]
                cells.append(f"{max(eligible):.1f}" if eligible else "–")
            rows.append([m.name, *cells])
    return rows


TABLES = {
    "Accuracy": (
        accuracy_table,
        "Test images, mean ± standard deviation over seeds; percent, forgetting and retention in points.",
    ),
    "Paired differences": (
        difference_table,
        "Mean over seeds and tasks with a 95 % bootstrap interval; ▲ better and ▼ worse only where it excludes zero "
        "and the test (Wilcoxon, or sign test below six pairs) has p < 0.05; ? where there are too few pairs to tell.",
    ),
    "Updates": (
        update_table,
        "Per task: Frobenius norm of all that moved and of the matrices alone; share of the latter that touches the "
        "pretrained principal subspaces, that lies in the directions of earlier updates, and the cosine to their sum.",
    ),
    "Budget": (
        budget_table,
        "A run: optimiser steps, parameters trained at once, files, state carried between tasks, time, memory.",
    ),
    "Sweep": (sweep_table, "Measured on validation shots and on zero-shot images of no test."),
    "At equal retention": (
        floor_table,
        "Best Last of the sweep among points that keep so much zero-shot accuracy (validation shots).",
    ),
}


def show(console: Console, found: Comparison) -> None:
    """Print the tables that the terminal needs; the files hold all of them."""
    for title in ("Accuracy", "Paired differences", "Updates", "Budget"):
        rows = TABLES[title][0](found)
        if len(rows) > 1:
            table = Table(title=f"{found.scenario}: {title.lower()}", title_justify="left")
            for column, name in enumerate(rows[0]):
                table.add_column(name, justify="left" if column == 0 else "right")
            for row in rows[1:]:
                table.add_row(*row)
            console.print(table)
    for m in found.methods:
        for failure in m.failed:
            console.print(f"{m.name}, {failure}", style="red", markup=False, highlight=False)


def save(found: Comparison, folder: Path) -> list[Path]:
    """Write everything into ``folder`` and say where."""
    from .plot import pareto

    accuracy = accuracy_table(found)
    texts = {
        "comparison.md": markdown(found),
        "comparison.tex": latex(accuracy),
        "comparison.csv": _csv(_wide(found)),
        "comparison-runs.csv": _csv(_long(found)),
        "comparison-sweep.csv": _csv(_swept(found)),
        "comparison-updates.csv": _csv([{"method": m.name, **row} for m in found.methods for row in m.per_task]),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    write_json(folder / "comparison.json", as_json(found))
    pareto(found, folder / "comparison.png")
    return [folder / name for name in (*texts, "comparison.json", "comparison.png")]


def markdown(found: Comparison) -> str:
    """All tables as one Markdown page."""
    asked = found.request
    seeds = ", ".join(map(str, asked.seeds))
    lines = [f"# {found.scenario}: {len(found.methods)} methods, seeds {seeds}", ""]
    if asked.sweep is not None:
        floor = (
            ""
            if asked.floor is None
            else f" among values that lose at most {-asked.floor:g} points of zero-shot accuracy"
        )
        sweep_seeds = ", ".join(map(str, asked.sweep_seeds or asked.seeds[:1]))
        lines += [f"Settings chosen by {asked.metric} on validation shots (seed {sweep_seeds}){floor}.", ""]
    for title, (table, note) in TABLES.items():
        rows = table(found)
        if len(rows) > 1:
            lines += [f"## {title}", "", note, "", _markdown(rows), ""]
    failures = [f"* {m.name}, {failure}" for m in found.methods for failure in m.failed]
    return "\n".join(lines + (["## Failed", "", *failures, ""] if failures else []))


def _markdown(rows: Rows) -> str:
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in body])


_TEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "–": "--",
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
    "#": r"\#",
    "‖ΔW‖": r"$\|\Delta W\|$",
}


def latex(rows: Rows) -> str:
    """A booktabs table."""

    def cell(text: str) -> str:
        for plain, tex in _TEX.items():
            text = text.replace(plain, tex)
        return text

    head, *body = [" & ".join(map(cell, row)) + r" \\" for row in rows]
    columns = "ll" + "r" * (len(rows[0]) - 2)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def as_json(found: Comparison) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "schema": 1,
        "scenario": found.scenario,
        "reference": found.reference,
        "request": asdict(found.request),
        "methods": {m.name: asdict(m) | {"chosen": dict(m.chosen)} for m in found.methods},
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _wide(found: Comparison) -> list[dict[str, Any]]:
    rows = []
    for m in found.methods:
        row: dict[str, Any] = {"method": m.name, "chosen": told(m.chosen) or "–"}
        for metric in METRICS:
            values = m.figures.get(metric)
            if values:
                row |= {f"{metric}_mean": np.mean(values), f"{metric}_std": _std(values)}
            if metric in m.differences:
                d = m.differences[metric]
                row |= {f"{metric}_{key}": getattr(d, name) for key, name in _DIFFERENCE.items()}
        rows.append(row | m.budget | {f"update_{key}": value for key, value in m.updates.items()})
    return rows


_DIFFERENCE = {"difference": "mean", "low": "low", "high": "high", "p": "p", "verdict": "verdict"}


def _long(found: Comparison) -> list[dict[str, Any]]:
    return [
        {"method": m.name, "seed": seed, "metric": metric, "value": value}
        for m in found.methods
        for metric, values in m.figures.items()
        for seed, value in zip(found.request.seeds, values, strict=True)
    ]


def _swept(found: Comparison) -> list[dict[str, Any]]:
    keys = ("last", "average", "retention", "score", "error")
    return [
        {"method": m.name, **p["settings"], **{key: p.get(key) for key in keys}} for m in found.methods for p in m.curve
    ]


def _std(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _spread(values: Sequence[float] | None, sign: bool = False) -> str:
    if not values or not np.isfinite(values).all():
        return "–"
    return f"{_points(np.mean(values)) if sign else f'{np.mean(values):.1f}'} ± {_std(values):.1f}"


def _points(value: float) -> str:
    return f"{value:+.1f}" if math.isfinite(value) else "–"


_MARKS = {"better": " ▲", "worse": " ▼", "too few pairs": " ?", "not shown": ""}


def _difference(m: Method, metric: str) -> str:
    d = m.differences.get(metric)
    return "–" if d is None else f"{d.mean:+.1f} [{d.low:+.1f}, {d.high:+.1f}]{_MARKS[d.verdict]}"
