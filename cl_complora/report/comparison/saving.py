"""A comparison as files: Markdown, LaTeX, CSV, JSON, and the picture of learning against keeping."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...files import write_json, write_text
from ..elements import NOTHING
from ..markdown_text import escaped, in_markdown
from .latex_table import latex, latex_table
from .pareto import pareto
from .tables import BEST, Content, chosen, failures, how_chosen, methods_of, metrics_of, spread, tables

__all__ = ["csv_text", "latex", "markdown", "save", "tried"]


def save(found: Content, folder: Path) -> list[Path]:
    """Write everything into ``folder`` and say where."""
    written = {
        "comparison.md": markdown(found),
        "comparison.tex": latex_table(found),
        "comparison.csv": csv_text(_wide(found)),
        "comparison-runs.csv": csv_text(_long(found)),
        "comparison-sweep.csv": csv_text(_swept(found)),
        "comparison-updates.csv": csv_text(
            [{"method": m["name"], **row} for m in methods_of(found) for row in m["per_task"]]
        ),
    }
    for name, text in [*written.items()]:
        if text.strip():
            write_text(folder / name, text)
        else:  # nothing was swept; what an earlier comparison swept is not of this one
            (folder / name).unlink(missing_ok=True)
            del written[name]
    write_json(folder / "comparison.json", found)
    pareto(found, folder / "comparison.png")
    return [folder / name for name in (*written, "comparison.json", "comparison.png")]


def markdown(found: Content) -> str:
    """All tables as one Markdown page."""
    seeds = ", ".join(map(str, found["request"]["seeds"]))
    lines = [f"# {escaped(found['scenario'])}: {len(found['methods'])} methods, seeds {seeds}", ""]
    chosen_by = how_chosen(found)
    lines += [escaped(chosen_by), ""] if chosen_by else []
    for title, table in tables(found).items():
        cells = [[f"**{c.text}**" if c.mark == BEST else in_markdown(c) for c in row] for row in table.rows]
        lines += [f"## {title}", "", table.note, "", _markdown([[*map(escaped, table.head)], *cells]), ""]
    failed = [f"* {escaped(failure)}" for failure in failures(found)]
    return "\n".join(lines + (["## Failed", "", *failed, ""] if failed else []))


def _markdown(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in body])


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """A table whose columns are all that any row has."""
    buffer = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _wide(found: Content) -> list[dict[str, Any]]:
    rows = []
    for m in methods_of(found):
        row: dict[str, Any] = {"method": m["name"], "chosen": chosen(m) or NOTHING}
        for metric in metrics_of(found):
            values = m["figures"].get(metric)
            if values:
                row |= {f"{metric}_mean": np.mean(values)}
                row[f"{metric}_std"] = spread(values) if len(values) > 1 else None
            if metric in m["differences"]:
                d = m["differences"][metric]
                row |= {f"{metric}_{key}": d[name] for key, name in _DIFFERENCE.items()}
        rows.append(row | m["budget"] | {f"update_{key}": value for key, value in m["updates"].items()})
    return rows


_DIFFERENCE = {"difference": "mean", "low": "low", "high": "high", "p": "p", "verdict": "verdict"}


def _long(found: Content) -> list[dict[str, Any]]:
    return [
        {"method": m["name"], "seed": seed, "metric": metric, "value": value}
        for m in methods_of(found)
        for metric, values in m["figures"].items()
        for seed, value in zip(found["request"]["seeds"], values, strict=True)
    ]


def _swept(found: Content) -> list[dict[str, Any]]:
    return [{"method": m["name"], **tried(p)} for m in methods_of(found) for p in m["curve"]]


def tried(point: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a combination of settings that was tried on validation shots."""
    keys = ("last", "average", "retention", "score", "error")
    return {**point["settings"], **{key: point.get(key) for key in keys}}
