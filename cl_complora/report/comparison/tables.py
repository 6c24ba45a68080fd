"""A comparison's tables, from what comparison.json holds; the terminal, Markdown, LaTeX and HTML all show
these."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...files import digits
from ...metrics import keeps
from ...store.forms import BY_SHOTS
from ..elements import NOTHING, Cell, Table

Content = Mapping[str, Any]
Rows = list[list[Cell]]

METRICS = {
    "learned": "learned",
    "last": "Last",
    "forgetting": "forgetting",
    "average": "Average",
    "transfer": "Transfer",
    "retention": "retention",
}
# Of scenarios with captions.
RETRIEVAL = {
    "image_to_text": "retention R@1 image→text",
    "text_to_image": "retention R@1 text→image",
}
# And of those with images of several labels.
BESIDE = RETRIEVAL | {"multi_label": "retention mAP"}
LOWER_IS_BETTER = ("forgetting",)
# Column of the settings, where any were swept.
CHOSEN = "chosen"
# Mark of the best mean of a column.
BEST = "best"
# What is a level or a loss; the others are changes, told with their sign.
_LEVELS = ("learned", "last", "forgetting", "average", "transfer")
# Retention that a method may lose at most, in points: the rows of the view at equal retention.
FLOORS = (-1, -2, -5, -10, -20)
MARKS = {"better": " ▲", "worse": " ▼", "too few pairs": " ?", "not shown": ""}


def tables(found: Content) -> dict[str, Table]:
    """Title → table, of those that have any rows.

    Args:
        found: content of comparison.json.
    """
    made = {title: Table(title, *make(found), note) for title, (make, note) in _TABLES.items()}
    if len(found["request"]["seeds"]) == 1:
        made["Accuracy"] = replace(made["Accuracy"], note=_ONE_SEED)
    return {title: table for title, table in made.items() if table.rows}


def texts(found: Content) -> dict[str, list[list[str]]]:
    """Title → rows of text, the column titles first."""
    return {
        title: [list(table.head), *([cell.text for cell in row] for row in table.rows)]
        for title, table in tables(found).items()
    }


def accuracy_table(found: Content) -> tuple[list[str], Rows]:
    """Mean ± standard deviation over seeds (one seed has none), in percent; forgetting and retention in
    points."""
    rows = []
    for m in methods_of(found):
        cells = [
            _spread(m["figures"].get(metric), sign=metric not in _LEVELS) for metric in metrics_of(found)
        ]
        rows.append([Cell(m["name"]), *cells])
    for place, metric in enumerate(metrics_of(found), start=1):
        mark_best(rows, place, metric in LOWER_IS_BETTER)
    settings = [chosen(m) for m in methods_of(found)]
    swept = any(settings)
    if swept:
        for row, text in zip(rows, settings, strict=True):
            row.insert(1, Cell(text or NOTHING))
    return ["method", *([CHOSEN] if swept else []), *metrics_of(found).values()], rows


def task_table(found: Content) -> tuple[list[str], Rows]:
    """Accuracy on every task after the stream, mean over seeds; none of comparisons that did not keep it."""
    by_method = {m["name"]: m["per_task"] for m in methods_of(found) if m["per_task"]}
    tasks = list(dict.fromkeys(row["task"] for told in by_method.values() for row in told))
    rows = []
    for name, told in by_method.items():
        if all("last" in row for row in told):
            values = [[row["last"] for row in told if row["task"] == task] for task in tasks]
            rows.append([Cell(name), *map(_spread, values)])
    for place in range(1, len(tasks) + 1):
        mark_best(rows, place, lowest=False)
    return ["method", *tasks], rows


def change_table(found: Content) -> tuple[list[str], Rows]:
    """Change of accuracy on every task since it was just trained, mean over seeds, in points; of all but the
    task trained last."""
    by_method = {m["name"]: m["per_task"] for m in methods_of(found) if m["per_task"]}
    tasks = list(dict.fromkeys(row["task"] for told in by_method.values() for row in told))[:-1]
    rows = []
    for name, told in by_method.items():
        if tasks and all(row.get("last") is not None and row.get("learned") is not None for row in told):
            values = [[row["last"] - row["learned"] for row in told if row["task"] == task] for task in tasks]
            rows.append([Cell(name), *(_spread(changes, sign=True) for changes in values)])
    for place in range(1, len(tasks) + 1):
        mark_best(rows, place, lowest=False)
    return ["method", *tasks], rows


def mark_best(rows: Rows, place: int, lowest: bool) -> None:
    """Mark the best of a column, and what is shown as the same figure; nothing where there is no choice."""
    known = {at: round(row[place].value, 1) for at, row in enumerate(rows) if row[place].value is not None}
    if len(known) < 2 or len(set(known.values())) < 2:
        return
    best = (min if lowest else max)(known.values())
    for at, value in known.items():
        if value == best:
            rows[at][place] = replace(rows[at][place], mark=BEST, note="best of its column")


def shots_table(found: Content) -> tuple[list[str], Rows]:
    """Means of the classes' accuracies after the stream, by their training images."""
    rows = []
    for m in methods_of(found):
        cells = [_spread(m["figures"].get(figure)) for figure in BY_SHOTS]
        if any(cell.value is not None for cell in cells):
            rows.append([Cell(m["name"]), *cells])
    return ["method", *BY_SHOTS], rows


def difference_table(found: Content) -> tuple[list[str], Rows]:
    """Each method minus the reference."""
    rows = [
        [Cell(m["name"]), *(_difference(m["differences"].get(metric)) for metric in metrics_of(found))]
        for m in methods_of(found)
        if m["differences"]
    ]
    return [f"minus {found['reference']}", *metrics_of(found).values()], rows


def metrics_of(found: Content) -> dict[str, str]:
    """Metric → what its column is called; those of captions and several labels only where there are any."""
    known = {metric for m in methods_of(found) for metric in m["figures"]}
    return METRICS | {metric: name for metric, name in BESIDE.items() if metric in known}


def update_table(found: Content) -> tuple[list[str], Rows]:
    """How far the weights moved a task, and where to."""
    rows = []
    for m in methods_of(found):
        values = [m["updates"].get(key) for key in ("norm", "matrix_norm", "principal", "earlier", "cosine")]
        rows.append([Cell(m["name"]), *(_figure(value, ".2f") for value in values)])
    return [
        "method",
        "‖ΔW‖",
        "of matrices",
        "share in principal",
        "share in earlier",
        "cosine to earlier",
    ], rows


def budget_table(found: Content) -> tuple[list[str], Rows]:
    """What a run costs."""
    rows = []
    for m in methods_of(found):
        b = m["budget"]
        if b:
            counts = [_figure(b["steps"], ".0f"), _figure(b["trainable_parameters"], ",.0f")]
            sizes = [_figure(b[key] / 1e6, ".1f") for key in ("stored_bytes", "carried_bytes")]
            costs = [_figure(b["train_seconds"], ".0f"), _figure(b["peak_memory_bytes"] / 1e6, ".0f")]
            rows.append([Cell(m["name"]), *counts, *sizes, *costs])
    return ["method", "steps", "trained", "deltas MB", "carried MB", "training s", "peak MB"], rows


def sweep_table(found: Content) -> tuple[list[str], Rows]:
    """Every combination that was tried, on validation shots."""
    rows = []
    for m in methods_of(found):
        for p in m["curve"]:
            if p["error"]:
                cells = [Cell(NOTHING), Cell(NOTHING), Cell(NOTHING), Cell(p["error"])]
            else:
                mark = "chosen" if p["settings"] == m["chosen"] else ""
                values = [
                    _figure(p["last"], ".1f"),
                    _figure(p["average"], ".1f"),
                    _figure(p["retention"], "+.1f"),
                ]
                cells = [*values, Cell(mark)]
            rows.append([Cell(m["name"]), Cell(p["told"]), *cells])
    return ["method", "settings", "Last", "Average", "retention", ""], rows


def floor_table(found: Content) -> tuple[list[str], Rows]:
    """Best Last on validation shots among the swept points that lose at most so many points of retention."""
    rows = []
    for m in methods_of(found):
        points = [p for p in m["curve"] if p["error"] is None]
        if points:
            cells = []
            for floor in (*FLOORS, -math.inf):
                every = floor == -math.inf
                eligible = [p["last"] for p in points if every or keeps(kept(p["retention"]), floor)]
                cells.append(_figure(max(eligible), ".1f") if eligible else Cell(NOTHING))
            rows.append([Cell(m["name"]), *cells])
    return ["method", *(f"retention ≥ {floor}" for floor in FLOORS), "any"], rows


_ONE_SEED = "Test images, one seed; percent, forgetting and retention in points."

_TABLES: dict[str, tuple[Callable[[Content], tuple[list[str], Rows]], str]] = {
    "Accuracy": (
        accuracy_table,
        "Test images, mean ± standard deviation over seeds; percent, forgetting and retention in points.",
    ),
    "Last by task": (
        task_table,
        "Test images, accuracy on every task after the stream in percent; the best of a task is bold.",
    ),
    "Change by task": (
        change_table,
        (
            "Test images, accuracy on every task after the stream minus that right after its own training, in"
            " points (BWT by task); the least lost is bold."
        ),
    ),
    "By shots": (
        shots_table,
        (
            "Last as a mean over classes (macro), and over those with many, medium and few training images;"
            " the scenario's shot_groups are the bounds (by default more than 16 and fewer than 5); percent."
        ),
    ),
    "Paired differences": (
        difference_table,
        (
            "Mean over seeds and tasks with a 95 % bootstrap interval; ▲ better and ▼ worse only where it"
            " excludes zero and the test (Wilcoxon, or sign test below six pairs) has p < 0.05; ? where there"
            " are too few pairs to tell. Retention is paired image by image (the bootstrap draws images and"
            " seeds; McNemar's test, or its like over seeds and sets) where the answers are recorded."
        ),
    ),
    "Updates": (
        update_table,
        (
            "Mean over tasks. ‖ΔW‖: Frobenius norm of all that moved, and of the matrices alone; of these the"
            " share that touches the pretrained principal subspaces (the directions that hold half of the"
            " energy), the share in the directions of earlier updates, and the cosine to their sum."
        ),
    ),
    "Budget": (
        budget_table,
        (
            "A run: optimiser steps, parameters trained at once, files, state carried between tasks, time,"
            " memory."
        ),
    ),
    "Sweep": (sweep_table, "Measured on validation shots and on zero-shot images of no test."),
    "At equal retention": (
        floor_table,
        "Best Last of the sweep among points that keep so much zero-shot accuracy (validation shots).",
    ),
}


def how_chosen(found: Content) -> str | None:
    """By what the settings of a comparison were chosen, and those of which methods; None where nothing was
    swept."""
    asked = found["request"]
    swept = [m for m in methods_of(found) if m["curve"]]
    if not swept:
        return None
    floor = asked["floor"]
    among = (
        "" if floor is None else f" among values that lose at most {0 - floor:g} points of zero-shot accuracy"
    )
    seeds = ", ".join(map(str, asked["sweep_seeds"] or asked["seeds"][:1]))
    others = [m["name"] for m in methods_of(found) if not m["curve"]]
    of = f" of {', '.join(m['name'] for m in swept)}" if others else ""
    rest = f" Not swept: {', '.join(others)}." if others else ""
    common = asked["sweep"] or {}
    partly = {m["name"]: [key for key in common if key not in m["curve"][0]["settings"]] for m in swept}
    rest += "".join(f" {name} was not swept over {', '.join(k)}." for name, k in partly.items() if k)
    below = [m["name"] for m in swept if floor is not None and not _chosen_keeps(m, floor)]
    if below:
        rest += f" No value of {', '.join(below)} keeps that much: the one that keeps most was taken."
    return f"Settings{of} chosen by {asked['metric']} on validation shots (seed {seeds}){among}.{rest}"


def _chosen_keeps(method: Mapping[str, Any], floor: float) -> bool:
    kept = [p["retention"] for p in method["curve"] if p["settings"] == dict(method["chosen"])]
    return all(value is None or keeps(value, floor) for value in kept)


def failures(found: Content) -> list[str]:
    """What could not be run, and why."""
    return [f"{m['name']}, {failure}" for m in methods_of(found) for failure in m["failed"]]


def chosen(method: Mapping[str, Any]) -> str:
    """The settings of a method that were tested, as :func:`told`."""
    return told(dict(method["chosen"]).items())


def told(settings: Iterable[tuple[str, float | str]]) -> str:
    """``lr=0.001, strength=100``: settings by the last part of their key; a text stands as it was typed."""
    return ", ".join(
        f"{key.rpartition('.')[2]}={value if isinstance(value, str) else digits(value)}"
        for key, value in settings
    )


def kept(retention: float | None) -> float:
    """Retention as a number; JSON has no NaN."""
    return math.nan if retention is None else retention


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (retention, Last) points that no other point equals in both and beats in one, by ascending
    retention; what is not measured beats nothing."""
    best: list[tuple[float, float]] = []
    measured = {point for point in points if all(map(math.isfinite, point))}
    for point in sorted(measured, key=lambda p: (-p[0], -p[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best[::-1]


def methods_of(found: Content) -> list[dict[str, Any]]:
    """What was found about every method, in the order that they were named in."""
    return list(found["methods"].values())


def _figure(value: float | None, form: str) -> Cell:
    return Cell(NOTHING) if value is None or not math.isfinite(value) else Cell(_told(value, form), value)


def _told(value: float, form: str) -> str:
    """The number in its format; a zero has no sign."""
    text = format(value, form)
    return text if text.strip("+-0.,") else text.lstrip("+-")


def spread(values: Sequence[float]) -> float:
    """Standard deviation over seeds; 0 for one seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def whole(values: Sequence[float | None] | None) -> list[float]:
    """One value a seed, or none at all where one is missing or undefined."""
    known = [value for value in values or () if value is not None and math.isfinite(value)]
    return known if values and len(known) == len(values) else []


def _spread(values: Sequence[float | None] | None, sign: bool = False) -> Cell:
    known = whole(values)
    if not known:
        return Cell(NOTHING)
    mean = float(np.mean(known))
    return Cell(_told(mean, "+.1f" if sign else ".1f") + plus_minus(known), mean)


def plus_minus(values: Sequence[float]) -> str:
    """`` ± 1.2``: the standard deviation over seeds; nothing for one seed, which has none."""
    return f" ± {spread(values):.1f}" if len(values) > 1 else ""


def _difference(d: Mapping[str, Any] | None) -> Cell:
    if d is None:
        return Cell(NOTHING)
    mean, low, high = (_told(d[key], "+.1f") for key in ("mean", "low", "high"))
    return Cell(f"{mean} [{low}, {high}]{MARKS[d['verdict']]}", d["mean"])
