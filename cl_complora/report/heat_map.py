"""Cells of heat maps."""

from __future__ import annotations

from matplotlib import colormaps
from matplotlib.colors import to_hex

from .elements import Cell


def shaded(cell: Cell, share: float, mark: str = "", note: str = "") -> Cell:
    """The cell on the colour of a share from 0 to 1, in a scale that every kind of colour vision can read."""
    if cell.value is None:
        return Cell(cell.text, None, "", mark, note)
    return Cell(cell.text, cell.value, to_hex(colormaps["cividis"](min(1.0, max(0.0, share)))), mark, note)
