"""Retrieval in a run's report, and in the tables of a terminal: R@k after every task and its retention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...analysis.paired import PairedChanges
from ...analysis.retrieved import retrieval_curve
from ...store.forms import DIRECTIONS, RECALLS
from ...store.loaded_run import LoadedRun
from ..elements import NOTHING, Card, Cell, Figure, Fold, Gallery, Table, number, percent
from . import figures
from .facts import count_head
from .paired_changes import change_table, told_change

NAMES = {"image_to_text": "image to text", "text_to_image": "text to image"}
_NOTE = (
    "R@k: share of the queries whose right answer is among the first k by cosine. Image to text: any of the"
    " image's texts; text to image: for every text. Ties count against."
)
_BAND = (
    "R@1 after every task; dotted: where it began; band: 95 % interval of the change on the same queries,"
    " where the run kept its ranks."
)
_PAIRED = (
    "Counted query by query: found first then and not now (lost), not then and now (won). Texts of one image"
    " are taken as independent, which makes intervals of text to image a little narrow."
)


def each(results: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, list[float]]]]:
    """(set, direction, R@k → its value in every state, NaN where nothing was measured)."""
    for name, both in results.get("retrieval", {}).items():
        for direction in DIRECTIONS:
            yield (
                name,
                direction,
                {k: [math.nan if v is None else v for v in both[direction][k]] for k in RECALLS},
            )


def retrieval(run: LoadedRun, paired: PairedChanges) -> list:
    """Curves of R@1, its changes by query, and all numbers."""
    if not run.results["accuracy"]:
        return []
    drawn, rows = [], []
    for place, (name, direction, shares) in enumerate(each(run.results)):
        first = shares["R@1"]
        title = f"{name}, {NAMES[direction]}"
        if np.isfinite(first).all() and not run.independent:
            curve = retrieval_curve(run.folder, run.config, run.results, name, direction) or []
            bounds = [(first[0],) * 2, *((first[0] + c.low, first[0] + c.high) for c in curve)]
            if len(bounds) != len(first):  # no ranks were kept
                bounds = [(value, value) for value in first]
            lows, highs = zip(*bounds, strict=True)
            prefix = f"retrieval-{place}"
            svg = figures.band(first, lows, highs, len(run.tasks), title, prefix, "R@1")
            drawn.append(Figure(f"{title}: R@1, %", svg))
        for index, value in enumerate(first):
            after = run.tasks[index - 1] if index else "untouched model"
            change = percent(value - first[0], signed=True) if index else Cell(NOTHING)
            cells = [percent(shares[k][index]) for k in RECALLS]
            rows.append([Cell(name), Cell(NAMES[direction]), number(index, 0), Cell(after), *cells, change])
    if not rows:
        return []
    head = [
        "set",
        "direction",
        count_head(run),
        "after",
        *(f"{k} %" for k in RECALLS),
        "change of R@1, points",
    ]
    table = Table("Retrieval after every task", head, rows, _NOTE)
    changes = {
        f"{name}, {NAMES[direction]}": change
        for name, both in paired.retrieval.items()
        for direction, change in both.items()
    }
    blocks: list = [Gallery(drawn, "middle", _BAND)] if drawn else []
    if changes:
        since = "Change of R@1 since the untouched model"
        blocks.append(change_table(since, "set and direction", changes, "queries", _PAIRED))
    return [*blocks, Fold("The numbers", [table])] if drawn else [table]


def held_out(results: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, list[float]]]]:
    """As :func:`each`, without tasks of captions: what a task has learned is nothing that could be
    retained."""
    kept = results.get("retrieval_retention", {})
    yield from (one for one in each(results) if one[0] in kept)


def cards(run: LoadedRun, paired: PairedChanges) -> list[Card]:
    """Retention of R@1, a card for every set and direction."""
    made = []
    for name, direction, shares in held_out(run.results):
        title, first = f"Retention {name}, {NAMES[direction]}", shares["R@1"]
        points = run.results["retrieval_retention"][name][direction]
        cell = number(points, 1, signed=True)
        if cell.value is None or not first:
            made.append(Card(title, Cell(NOTHING), "points", "not defined: nothing was measured"))
            continue
        meaning = f"R@1 {percent(first[0]).text} % before, "
        if run.independent:
            meaning += "the mean change after a task"
        else:
            meaning += f"{percent(first[-1]).text} % {'after the stream' if run.done else 'now'}"
        change = paired.retrieval.get(name, {}).get(direction)
        if change is not None:
            meaning += f"; query by query {told_change(change)}".replace("-", "−")
        made.append(Card(title, cell, "points", meaning))
    return made


def headlines(results: dict[str, Any], paired: PairedChanges) -> Iterator[tuple[str, float | None, str]]:
    """(name, points, meaning) of every set and direction, for a terminal."""
    for name, direction, shares in held_out(results):
        first = [f"{100 * v:.1f}" if math.isfinite(v) else NOTHING for v in shares["R@1"]]
        meaning = f"R@1 {first[0]} % before, "
        meaning += (
            "the mean change after a task"
            if results.get("independent")
            else f"{first[-1]} % after the stream"
        )
        change = paired.retrieval.get(name, {}).get(direction)
        if change is not None:
            meaning += f"; query by query {told_change(change)}"
        yield (
            f"Retention {name}, {NAMES[direction]}",
            results["retrieval_retention"][name][direction],
            meaning,
        )
