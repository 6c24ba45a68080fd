"""A comparison on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .tables import Content, failures, how_chosen, texts

# Those that a terminal has room for; the files hold all of them.
SHOWN = ("Accuracy", "By shots", "Paired differences", "Updates", "Budget")


def show(console: Console, found: Content) -> None:
    """Print the tables that the terminal needs, and what failed."""
    for title, rows in texts(found).items():
        if title in SHOWN:
            heading = f"{found['scenario']}: {title.lower()}"
            for place, part in enumerate(fitting(rows, console.width if console.is_terminal else 0)):
                console.print(_table(part, "" if place else heading))
    if chosen_by := how_chosen(found):
        console.print(chosen_by, markup=False, highlight=False, soft_wrap=True)
    for failure in failures(found):
        console.print(failure, style="red", markup=False, highlight=False)


def fitting(rows: Sequence[Sequence[str]], width: int) -> list[list[list[str]]]:
    """The table in as many parts as a terminal needs, each with the first column.

    Args:
        rows: the heads first.
        width: columns of the terminal; 0 for any number.
    """
    # Two blanks and a line for every column.
    wide = [max(map(len, column)) + 3 for column in zip(*rows, strict=True)]
    parts: list[list[int]] = [[]]
    for place in range(1, len(wide)):
        if width and parts[-1] and wide[0] + 1 + sum(wide[p] for p in (*parts[-1], place)) > width:
            parts.append([])
        parts[-1].append(place)
    return [[[row[0], *(row[place] for place in part)] for row in rows] for part in parts]


def _table(rows: Sequence[Sequence[str]], title: str) -> Table:
    table = Table(title=Text(title) if title else None, title_justify="left")
    for column, name in enumerate(rows[0]):
        table.add_column(Text(name), justify="right" if column else "left", no_wrap=not column)
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table
