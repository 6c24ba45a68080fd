"""Changes on the same images as a table."""

from __future__ import annotations

from collections.abc import Mapping

from ...metrics import PairedChange
from ..elements import Cell, Table, number, percent


def change_table(caption: str, what: str, changes: Mapping[str, PairedChange]) -> Table:
    """A row for every task or zero-shot set.

    Args:
        caption: since when.
        what: what a row is.
        changes: name → change between two states.
    """
    rows = []
    for name, c in changes.items():
        p = Cell("< 0.001", c.p) if c.p < 0.001 else number(c.p, 3)
        counts = [number(count, 0) for count in (c.images, c.lost, c.won)]
        between = f"{percent(c.low, signed=True).text} to {percent(c.high, signed=True).text}"
        rows.append([Cell(name), *counts, percent(c.change, signed=True), Cell(between), p])
    note = (
        "Counted image by image: right then and wrong now (lost), wrong then and right now (won). Change in"
        " points with its 95 % interval (Bonett and Price, 2012) and the exact p of McNemar's test."
    )
    return Table(caption, [what, "images", "lost", "won", "change", "95 % interval", "p"], rows, note)
