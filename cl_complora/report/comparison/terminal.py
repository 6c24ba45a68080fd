"""A comparison on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from .tables import Content, failures, how_chosen, texts

# Those that a terminal has room for; the files hold all of them.
SHOWN = ("Accuracy", "By shots", "Paired differences", "Updates", "Budget")


def show(console: Console, found: Content) -> None:
    """Print the tables that the terminal needs, and what failed."""
    for title, rows in texts(found).items():
        if title in SHOWN:
            table = Table(title=f"{found['scenario']}: {title.lower()}", title_justify="left")
            for column, name in enumerate(rows[0]):
                table.add_column(name, justify="left" if column == 0 else "right")
            for row in rows[1:]:
                table.add_row(*row)
            console.print(table)
    if chosen_by := how_chosen(found):
        console.print(chosen_by, markup=False, highlight=False, soft_wrap=True)
    for failure in failures(found):
        console.print(failure, style="red", markup=False, highlight=False)
