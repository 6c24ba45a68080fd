"""A run's results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ...analysis.paired import PairedChanges
from ...metrics import interval
from ...store.forms import SHOT_GROUPS
from .paired_changes import points_between, told_change
from .precision import headlines as precision_headlines
from .recall import headlines as retrieval_headlines

MEANING = {
    "transfer": "accuracy on a task after the earlier ones, before its own training",
    "average": "every task's mean over the states after each task",
    "last": "mean accuracy after the last task",
    "forgetting": "best accuracy since a task was learned, minus its last",
    "bwt": "last accuracy minus the one right after training",
}


def matrix(results: dict[str, Any], learned: Sequence[int], width: int = 0) -> Table:
    """The accuracy matrix in percent; the cell of the task just trained is bold, zero-shot sets stand at the
    right.

    Args:
        results: content of results.json.
        learned: the state that each task was learned in.
        width: columns of the terminal; where the names are too long for it, tasks are numbered instead of
            broken. 0 for any width.
    """
    title = f"{results['scenario']} · {results['strategy']} · seed {results['seed']}: accuracy in %"
    tasks, sets = results["tasks"], results["zero_shot_sets"]
    # Two blanks and a line for every column, and the line at the end.
    needed = max(map(len, (*tasks, "untouched"))) + 4
    needed += sum(max(5, len(name)) + 3 for name in tasks) + sum(max(11, len(name)) + 3 for name in sets)
    numbered = 0 < width < needed
    # A title is broken to the width of its table, which may have few columns.
    table = Table(title=Text(title), min_width=cell_len(title))
    if numbered:
        table = Table(title=Text(title), title_justify="left", box=None, padding=(0, 1, 0, 0))
        table.min_width = cell_len(title)
    table.add_column("after", no_wrap=True)
    for number, task in enumerate(tasks, start=1):
        name = f"{task}\n(mean R@1)" if task in results.get("task_measures", {}) else task
        table.add_column(str(number) if numbered else name, justify="right", no_wrap=True)
    for name in sets:
        head = name if numbered else f"{name}\n(zero-shot)"
        table.add_column(head, justify="right", style="cyan", overflow="fold")
    for index, row in enumerate(results["accuracy"]):
        label = tasks[index - 1] if index else "untouched"
        if numbered and index:
            measure = " (mean R@1)" if label in results.get("task_measures", {}) else ""
            label = f"{index:2} {label}{measure}"
        cells = [
            Text(_percent(value), style="bold" if index == learned[column] else "")
            for column, value in enumerate(row)
        ]
        held_out = [_percent(results["zero_shot"][name][index]) for name in results["zero_shot_sets"]]
        table.add_row(label, *cells, *held_out)
    return table


def headlines(results: dict[str, Any], paired: PairedChanges) -> Table:
    """Transfer, Average, Last, forgetting, BWT and retention, each with its meaning.

    Args:
        results: content of results.json.
        paired: what changed on the same images; intervals of the changes stand where it is known.
    """
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    meanings = MEANING | (
        {"last": "mean accuracy of every task's own model"} if results.get("independent") else {}
    )
    for key, meaning in meanings.items():
        unit = "points" if key in ("forgetting", "bwt") else "%"
        name = "BWT" if key == "bwt" else key.capitalize()
        moved = paired.bwt(len(results["tasks"]) - 1) if key == "bwt" else None
        if moved is not None:
            meaning += f" (95 % interval {points_between(*moved[1:])})"
        table.add_row(name, _percent(results[key], signed=key == "bwt"), unit, Text(meaning, style="dim"))
    if shots := results.get("by_shots"):
        last = shots["last"]
        told = ", ".join(f"{name} {_percent(last.get(name))}" for name in SHOT_GROUPS)
        meaning = (
            f"{told} (many: more than {shots['many_above']} shots, few: fewer than {shots['few_below']})"
        )
        table.add_row("By class", _percent(last.get("macro")), "%", Text(meaning, style="dim"))
    for name, points in results["retention"].items():
        before, after = results["zero_shot"][name][0], results["zero_shot"][name][-1]
        images = results.get("zero_shot_images", {}).get(name)
        if results.get("independent"):
            meaning = f"zero-shot accuracy {_percent(before)} % before; the mean change after a task"
        else:
            meaning = f"zero-shot accuracy {_percent(before)} % before, {_percent(after)} % after the stream"
        if name in paired.sets:
            meaning += f"; image by image {told_change(paired.sets[name])}"
        elif images and after is not None and after == after and not results.get("independent"):
            low, high = interval(after, images)
            meaning += f" ({_percent(low)}–{_percent(high)} with 95 % confidence)"
        shown = "–" if points is None or points != points else f"{points:+.1f}"
        table.add_row(f"Retention {name}", shown, "points", Text(meaning, style="dim"))
    for name, points, meaning in (*retrieval_headlines(results, paired), *precision_headlines(results)):
        shown = "–" if points is None or points != points else f"{points:+.1f}"
        table.add_row(name, shown, "points", Text(meaning, style="dim"))
    return table


def show(console: Console, results: dict[str, Any], learned: Sequence[int], paired: PairedChanges) -> None:
    """Print matrix and headlines (arguments as :func:`matrix` and :func:`headlines`)."""
    width = console.width if console.is_terminal else 0
    console.print(Group(matrix(results, learned, width), "", headlines(results, paired)))


def _percent(value: float | None, signed: bool = False) -> str:
    if value is None or value != value:
        return "–"
    shown = round(100 * value, 1) + 0.0  # no minus before a zero
    return f"{shown:+.1f}" if signed else f"{shown:.1f}"
