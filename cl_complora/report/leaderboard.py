"""The leaderboard as a page of Markdown and as one of HTML that can be sorted and filtered."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..config.about import BOUNDS, KINDS
from ..version import __version__
from .comparison.figures import MOST_NAMES, MOST_NUMBERS, far_off, trade_off
from .comparison.page import MOST_LISTED, tested
from .comparison.tables import LOWER_IS_BETTER, MARKS, mark_best, plus_minus, whole
from .elements import NOTHING, Cell, Figure, Gallery, Page, Section, Table, Text, number
from .markdown_text import escaped, in_markdown

# Figure → heading and whether it is told with its sign.
FIGURES = {
    "last": ("Last", False),
    "learned": ("learned", False),
    "forgetting": ("forgetting", False),
    "transfer": ("Transfer", False),
    "retention": ("retention", True),
    "image_to_text": ("retention R@1 image→text", True),
    "text_to_image": ("retention R@1 text→image", True),
    "multi_label": ("retention mAP", True),
}
HOW_TO_READ = (
    "Test images; mean ± standard deviation over seeds, percent; forgetting and retention in points. Last is"
    " the mean accuracy after the stream, learned that right after a task, Transfer that before it; retention"
    " is the change of zero-shot accuracy over the stream. ▲ better and ▼ worse only where the 95 % bootstrap"
    " interval of the paired difference excludes zero and the test has p < 0.05; ? where there are too few"
    " pairs to tell. ◆: no other method is as good in Last and in retention and better in one. Methods that"
    " see more than a stream shows them are listed, and are neither called the best nor on that front. Times"
    " are those of the machine that each was run on."
)
_COSTS = (
    "▲ and ▼ as above. ‖ΔW‖: length of what a task added to the weights, mean over tasks; trained: parameters"
    " trained at once; training s and peak MB of a run; settings: those that were chosen on validation shots."
)
_STALE = "stale: its settings, the scenario or the weights have changed since, or are not those of the others"


def markdown(boards: Sequence[Mapping[str, Any]]) -> str:
    """docs/leaderboard.md: a table for every scenario.

    Args:
        boards: as :func:`cl_complora.compare.leaderboard.leaderboard` makes them.
    """
    lines = ["# Leaderboard", "", *_wrapped(HOW_TO_READ), ""]
    for board in boards:
        head, rows = _table(board)
        lines += [f"## {escaped(board['scenario'])}", ""]
        lines += [f"| {' | '.join(map(escaped, head))} |", "|---|---|" + "--:|" * (len(head) - 3) + "---|"]
        for row in rows:
            lines.append(f"| {' | '.join(map(in_markdown, row))} |")
        lines += ["", *_wrapped(escaped(_notes(board))), ""]
    return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 118, break_long_words=False, break_on_hyphens=False)


def leaderboard_page(boards: Sequence[Mapping[str, Any]]) -> Page:
    """The same as a page: sorted by a click on a heading, filtered by kind."""
    sections = []
    for place, board in enumerate(boards):
        blocks = [*_tables(board), Text([_notes(board, MOST_LISTED)]), *_front(board, f"front{place}")]
        sections.append(Section(f"scenario-{place}", board["scenario"], blocks))
    facts = {"Scenarios": str(len(boards)), "Methods": str(max(len(board["rows"]) for board in boards))}
    return Page("Leaderboard", "published results", facts, sections, f"cl_complora {__version__}")


def _tables(board: Mapping[str, Any]) -> list[Table]:
    """Results, and what they cost: one table of all the columns is wider than any screen."""
    head, rows = _table(board)
    fair = [
        row for row, m in zip(rows, board["rows"], strict=True) if not m["stale"] and m["kind"] not in BOUNDS
    ]
    for key, (name, _) in FIGURES.items():
        if name in head:
            mark_best(fair, head.index(name), key in LOWER_IS_BETTER)
    kind, costs, against = head.index("kind"), head.index("‖ΔW‖"), len(_compared_with(board))
    # What is asked for first stands where a narrow window still shows it.
    first = [0, head.index("Last"), *range(costs - against, costs)[:1]]
    figures = [column for column in range(costs - against) if column not in (*first, kind)]
    shown = [[*first, *figures, kind], [0, kind, *range(costs - max(0, against - 1), len(head))]]
    more = "Against the best, and what they cost" if against > 1 else "What they cost"
    titles = [f"{what} on {board['scenario']}" for what in ("Methods", more)]
    notes = (HOW_TO_READ, _COSTS)
    return [
        Table(
            title,
            [head[column] for column in columns],
            [[row[column] for column in columns] for row in rows],
            note,
            filtered=columns.index(kind),
        )
        for title, columns, note in zip(titles, shown, notes, strict=True)
    ]


def _front(board: Mapping[str, Any], prefix: str) -> list[Gallery]:
    """Last against retention, without what lies so far off that it would squeeze all others together."""
    points = tested(board["rows"])
    if not points:
        return []
    away = far_off(points)
    kept = [point for point in points if point not in away]
    note = "Means over seeds; bars: standard deviation. Filled and joined: methods with ◆ in the table."
    if len(kept) > MOST_NUMBERS:
        note += " Names where there is room; the table has all."
    elif len(kept) > MOST_NAMES:
        note += f" {', '.join(f'{place}: {m.name}' for place, m in enumerate(kept, start=1))}."
    if away:
        told = ", ".join(
            f"{m.name} (Last {number(m.last).text}, retention {number(m.retention, 1, True).text})"
            for m in away
        )
        note += f" Too far below to be drawn: {told}."
    drawn = trade_off(kept, prefix)
    return [Gallery([Figure("Trade-off: accuracy against retention", drawn)], "wide", note)]


def _table(board: Mapping[str, Any]) -> tuple[list[str], list[list[Cell]]]:
    shown = [key for key in FIGURES if any(whole(row["figures"].get(key)) for row in board["rows"])]
    head = ["method", "kind", *(FIGURES[key][0] for key in shown)]
    head += [f"Last minus {board[key]}" for key in _compared_with(board)]
    head += ["‖ΔW‖", "trained", "training s", "peak MB", "seeds", "settings"]
    return head, [_cells(row, board, shown) for row in board["rows"]]


def _compared_with(board: Mapping[str, Any]) -> list[str]:
    """``reference`` and ``best``, as far as they are there and two."""
    there = [key for key in ("reference", "best") if board[key] is not None]
    return there[:1] if board["reference"] == board["best"] else there


def _cells(row: Mapping[str, Any], board: Mapping[str, Any], shown: Sequence[str]) -> list[Cell]:
    name = row["name"] + (" ◆" if row["front"] else "") + (" (stale)" if row["stale"] else "")
    cells = [Cell(name), Cell(KINDS.get(row["kind"], row["kind"]))]
    cells += [_spread(row["figures"].get(key), FIGURES[key][1]) for key in shown]
    cells += [_difference(row[f"against_{key}"].get("last")) for key in _compared_with(board)]
    cost = row["budget"]
    cells += [
        number(row["updates"]["norm"], 2),
        number(cost["trainable_parameters"], 0),
        number(cost["train_seconds"], 0),
        number(cost["peak_memory_bytes"] / 1e6, 0),
        number(len(row["seeds"]), 0),
    ]
    settings = ", ".join(told for told in (row["set"], row["chosen"]) if told)
    return [*cells, Cell(settings or ("as shipped" if not row["swept"] else NOTHING))]


def _spread(values: Sequence[float] | None, signed: bool) -> Cell:
    known = whole(values)
    if not known:
        return Cell(NOTHING)
    mean = number(float(np.mean(known)), 1, signed)
    return Cell(f"{mean.text}{plus_minus(known)}", mean.value)


def _difference(found: Mapping[str, Any] | None) -> Cell:
    if found is None:
        return Cell(NOTHING)
    mean, low, high = (number(found[key], 1, True) for key in ("mean", "low", "high"))
    return Cell(f"{mean.text} [{low.text}, {high.text}]{MARKS[found['verdict']]}", mean.value)


def _notes(board: Mapping[str, Any], most: int | None = None) -> str:
    """What to know of the rows.

    Args:
        board: as :func:`markdown` takes them.
        most: names that are listed before they are counted; all by default.
    """
    rows = board["rows"]

    def listed(names: Sequence[str], of: int) -> str:
        whole = most is None or len(names) <= most
        return ", ".join(names) if whole else f"{len(names)} of {of} methods"

    said = []
    once = [row["name"] for row in rows if len(row["seeds"]) == 1]
    if once:
        said.append(f"One seed only, so that no spread is told: {listed(once, len(rows))}.")
    given = [row["name"] for row in rows if row["set"] and not row["swept"]]
    if given:
        said.append(f"Run with the settings in the last column, not chosen here: {listed(given, len(rows))}.")
    unswept = [row["name"] for row in rows if not (row["swept"] or row["set"]) and row["budget"]["steps"] > 0]
    if unswept:
        said.append(
            f"Run with the settings that ship, which were not chosen here: {listed(unswept, len(rows))}."
        )
    if any(row["stale"] for row in rows):
        said.append(f"{_STALE[0].upper()}{_STALE[1:]}.")
    if board["missing"]:
        said.append(f"Not measured yet: {listed(board['missing'], len(rows) + len(board['missing']))}.")
    return " ".join(said)
