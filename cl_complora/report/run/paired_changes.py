"""Changes on the same images as a table."""

from __future__ import annotations

from collections.abc import Mapping

from ...metrics import PairedChange
from ..elements import Cell, Table, number, percent

_BY_IMAGE = "Counted image by image: right then and wrong now (lost), wrong then and right now (won)."


def change_table(
    caption: str,
    what: str,
    changes: Mapping[str, PairedChange],
    units: str = "images",
    counted: str = _BY_IMAGE,
) -> Table:
    """A row for every task or set.

    Args:
        caption: since when.
        what: what a row is.
        changes: name → change between two states.
        units: what is counted.
        counted: how, in a sentence.
    """
    rows = []
    for name, c in changes.items():
        p = Cell("< 0.001", c.p) if c.p < 0.001 else number(c.p, 3)
        counts = [number(count, 0) for count in (c.images, c.lost, c.won)]
        between = f"{percent(c.low, signed=True).text} to {percent(c.high, signed=True).text}"
        rows.append([Cell(name), *counts, percent(c.change, signed=True), Cell(between), p])
    note = (
        f"{counted} Change in points with its 95 % interval (Bonett and Price, 2012) and the exact p of"
        " McNemar's test."
    )
    return Table(caption, [what, units, "lost", "won", "change", "95 % interval", "p"], rows, note)


def told_change(change: PairedChange) -> str:
    """``32 lost, 11 won, 95 % interval -3.8 to -0.9 points, p = 0.002``."""
    p = "p < 0.001" if change.p < 0.001 else f"p = {change.p:.3f}"
    return (
        f"{change.lost} lost, {change.won} won, 95 % interval {points_between(change.low, change.high)}, {p}"
    )


def points_between(low: float, high: float) -> str:
    """``-3.8 to -0.9 points`` of two fractions."""
    return f"{100 * low:+.1f} to {100 * high:+.1f} points"
