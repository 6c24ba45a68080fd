"""Cells of heat maps, and scales that noise does not fill."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import ArrayLike

from .elements import Cell

# Shares below it are what float32 leaves of a zero, or so little that no one acts on them.
ROUNDING = 1e-3


def share_scale(values: ArrayLike) -> tuple[float, float]:
    """Ends of the colour scale of shares (0 nothing, 1 all): 0 to 1, or 0 to 0.1 where none is larger.

    A scale from the smallest to the largest value would draw rounding errors like effects.
    """
    known = np.asarray(values, dtype=float)
    return 0.0, 1.0 if known[np.isfinite(known)].max(initial=0.0) > 0.1 else 0.1


def similarity_scale(values: ArrayLike) -> tuple[float, float]:
    """Ends of the colour scale of similarities (1 the same): 0 to 1, or 0.9 to 1 where none is smaller."""
    known = np.asarray(values, dtype=float)
    return 0.9 if known[np.isfinite(known)].min(initial=1.0) >= 0.9 else 0.0, 1.0


def only_rounding(values: ArrayLike) -> bool:
    """Whether shares are all zero but for rounding."""
    known = np.asarray(values, dtype=float)
    return bool(np.abs(known[np.isfinite(known)]).max(initial=0.0) < ROUNDING)


def shaded(cell: Cell, share: float, mark: str = "", note: str = "") -> Cell:
    """The cell on the colour of a share from 0 to 1, in a scale that every kind of colour vision can read."""
    if cell.value is None:
        return Cell(cell.text, None, "", mark, note)
    return Cell(cell.text, cell.value, to_hex(colormaps["cividis"](min(1.0, max(0.0, share)))), mark, note)
