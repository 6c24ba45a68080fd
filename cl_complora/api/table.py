"""Numbers with names on both sides, shown as text, as HTML and as a pandas frame."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError

if TYPE_CHECKING:
    from types import ModuleType

    import pandas


class LabelledTable:
    """A matrix whose rows and columns have names.

    It is taken for an array wherever numpy expects one.

    Args:
        values: ``(rows, columns)`` numbers; NaN where nothing was measured.
        rows: their names.
        columns: their names.
        corner: what the names of the rows are.

    Attributes:
        values: ``(rows, columns)``, NaN where nothing was measured.
        rows, columns: their names.
        corner: what the rows are.
    """

    def __init__(
        self, values: Any, rows: Sequence[str], columns: Sequence[str], corner: str = "after"
    ) -> None:
        self.values: np.ndarray = np.asarray(values, dtype=float).reshape(len(rows), len(columns))
        self.rows, self.columns, self.corner = list(rows), list(columns), corner

    @property
    def shape(self) -> tuple[int, int]:
        """Rows × columns."""
        return len(self.rows), len(self.columns)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self.values if dtype is None else self.values.astype(dtype)
        return values.copy() if copy else values

    def __getitem__(self, place: Any) -> Any:
        """A column by name, a cell by (row's name, column's name), or what numpy understands."""
        if isinstance(place, str):
            return self.values[:, self._place(place, self.columns)]
        if isinstance(place, tuple) and len(place) == 2 and any(isinstance(one, str) for one in place):
            names = zip(place, (self.rows, self.columns), strict=True)
            row, column = (self._place(one, known) if isinstance(one, str) else one for one, known in names)
            return self.values[row, column]
        return self.values[place]

    @staticmethod
    def _place(name: str, known: Sequence[str]) -> int:
        if name not in known:
            raise KeyError(f"{name!r}: there are {', '.join(map(repr, known))}")
        return known.index(name)

    def __repr__(self) -> str:
        cells = [[self.corner, *self.columns]]
        cells += [[name, *map(_shown, row)] for name, row in zip(self.rows, self.values, strict=True)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = []
        for first, *others in cells:
            aligned = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
            lines.append("  ".join([first.ljust(widths[0]), *aligned]))
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in (self.corner, *self.columns))
        body = "".join(
            f"<tr><th>{html.escape(name)}</th>{''.join(f'<td>{_shown(v)}</td>' for v in row)}</tr>"
            for name, row in zip(self.rows, self.values, strict=True)
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def to_frame(self) -> pandas.DataFrame:
        """The same as a pandas frame.

        Raises:
            UserError: if pandas is not installed.
        """
        frame = pandas_or_error("to_frame()").DataFrame(self.values, index=self.rows, columns=self.columns)
        frame.index.name = self.corner
        return frame


def _shown(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def pandas_or_error(what: str) -> ModuleType:
    """pandas.

    Args:
        what: needs it.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise UserError(
            f"{what} needs pandas, which is not installed: pip install pandas (or cl_complora[pandas])"
        ) from None
    return pandas
