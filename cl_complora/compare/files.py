"""A comparison as tables: for the terminal, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..files import write_json, write_text
from ..report.comparison.tables import Content, failures, how_chosen, spread, tables
from ..report.elements import NOTHING
from .study import METRICS, Comparison
from .trials import told


def show(console: Console, found: Comparison) -> None:
    """Print the tables that the terminal needs; the files hold all of them."""
    content = as_json(found)
    for title, rows in _texts(content).items():
        if title in ("Accuracy", "Paired differences", "Updates", "Budget"):
            table = Table(title=f"{found.scenario}: {title.lower()}", title_justify="left")
            for column, name in enumerate(rows[0]):
                table.add_column(name, justify="left" if column == 0 else "right")
            for row in rows[1:]:
                table.add_row(*row)
            console.print(table)
    for failure in failures(content):
        console.print(failure, style="red", markup=False, highlight=False)


def _texts(content: Content) -> dict[str, list[list[str]]]:
    """Title → rows of text, the column titles first."""
    return {
        title: [list(table.head), *([cell.text for cell in row] for row in table.rows)]
        for title, table in tables(content).items()
    }


def save(found: Comparison, folder: Path) -> list[Path]:
    """Write everything into ``folder`` and say where."""
    from ..report.comparison.pareto import pareto

    texts = {
        "comparison.md": markdown(found),
        "comparison.tex": latex(_texts(as_json(found))["Accuracy"]),
        "comparison.csv": _csv(_wide(found)),
        "comparison-runs.csv": _csv(_long(found)),
        "comparison-sweep.csv": _csv(_swept(found)),
        "comparison-updates.csv": _csv(
            [{"method": m.name, **row} for m in found.methods for row in m.per_task]
        ),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    write_json(folder / "comparison.json", as_json(found))
    pareto(found, folder / "comparison.png")
    return [folder / name for name in (*texts, "comparison.json", "comparison.png")]


def markdown(found: Comparison) -> str:
    """All tables as one Markdown page."""
    content = as_json(found)
    seeds = ", ".join(map(str, found.request.seeds))
    lines = [f"# {found.scenario}: {len(found.methods)} methods, seeds {seeds}", ""]
    chosen_by = how_chosen(content)
    lines += [chosen_by, ""] if chosen_by else []
    notes = tables(content)
    for title, rows in _texts(content).items():
        lines += [f"## {title}", "", notes[title].note, "", _markdown(rows), ""]
    failed = [f"* {failure}" for failure in failures(content)]
    return "\n".join(lines + (["## Failed", "", *failed, ""] if failed else []))


def _markdown(rows: list[list[str]]) -> str:
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


def latex(rows: list[list[str]]) -> str:
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
        row: dict[str, Any] = {"method": m.name, "chosen": told(m.chosen) or NOTHING}
        for metric in METRICS:
            values = m.figures.get(metric)
            if values:
                row |= {f"{metric}_mean": np.mean(values), f"{metric}_std": spread(values)}
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
        {"method": m.name, **p["settings"], **{key: p.get(key) for key in keys}}
        for m in found.methods
        for p in m.curve
    ]
