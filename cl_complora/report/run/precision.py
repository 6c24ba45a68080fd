"""How well classes are found in images that show several: mAP in every state, and what is kept of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ...store.forms import PRECISIONS
from ...store.loaded_run import LoadedRun
from ..elements import NOTHING, Card, Cell, Table, number, percent
from .facts import count_head

_HEADS = ("mAP %", "normalised %", "SPARC %")
_NOTE = (
    "mAP is the mean over the classes of average precision, of the cosines with the classes' texts."
    " Normalised and SPARC are TRANSDUCTIVE: what an image gets depends on all the other images of the set,"
    " so they stand beside each other and not beside mAP. Normalised are the cosines as z-scores of every"
    " image and then of every class; SPARC adds prompts that name several classes, and is not defined"
    " without any."
)


def multi_label(run: LoadedRun) -> list[Table]:
    """All numbers, a row for every state and set."""
    rows = []
    images = run.results.get("multi_label_images", {})
    for name, curves in run.results.get("multi_label", {}).items():
        told = images.get(name, {})
        size = f"{told.get('images', NOTHING)} images, {told.get('counted', NOTHING)} classes"
        first = _value(curves["mAP"][0]) if curves["mAP"] else math.nan
        for index in range(len(run.rows)):
            after = run.tasks[index - 1] if index else "untouched model"
            now = _value(curves["mAP"][index])
            change = percent(now - first, signed=True) if index else Cell(NOTHING)
            values = [percent(curves[key][index]) for key in PRECISIONS]
            rows.append([Cell(name), Cell(size), number(index, 0), Cell(after), *values, change])
    if not rows:
        return []
    head = ["set", "measured on", count_head(run), "after", *_HEADS, "change of mAP, points"]
    return [Table("mAP after every task", head, rows, _NOTE)]


def cards(run: LoadedRun) -> list[Card]:
    """Retention of mAP, a card for every set."""
    made = []
    for name, points, meaning in headlines(run.results):
        cell = number(points, 1, signed=True)
        if cell.value is None:
            made.append(Card(name, Cell(NOTHING), "points", "not defined: nothing was measured"))
        else:
            made.append(Card(name, cell, "points", meaning))
    return made


def headlines(results: dict[str, Any]) -> Iterator[tuple[str, float | None, str]]:
    """(name, points, meaning) of every set."""
    for name, curves in results.get("multi_label", {}).items():
        values = [f"{100 * v:.1f}" if math.isfinite(v) else NOTHING for v in map(_value, curves["mAP"])]
        if not values:
            continue
        told = f"mAP {values[0]} % before, "
        if results.get("independent"):
            told += "the mean change after a task"
        else:
            told += f"{values[-1]} % {'after the stream' if results['status'] == 'done' else 'now'}"
        yield f"Retention {name}, mAP", results["multi_label_retention"][name], told


def _value(number: float | None) -> float:
    return math.nan if number is None else number
