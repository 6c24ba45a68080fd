"""Figures for notebooks: matplotlib's, to be changed and saved, which show themselves."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from .comparison.pareto import pareto_figure
from .comparison.tables import Content
from .tensorboard.figures import COLOURS, CURVES_SIZE, draw_curves, draw_matrix, drawing, matrix_size


class ShownFigure(Figure):
    """A figure that a notebook shows as a cell's value, whether or not pyplot was imported."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=self.dpi)
        return buffer.getvalue()


def curves_plot(rows: ArrayLike, tasks: Sequence[str], learned: Sequence[int], title: str) -> Figure:
    """Accuracy on every task over the stream; a dot where it was learned.

    Args:
        rows: ``(t+1, T)`` fractions, the untouched model first.
        tasks: T names.
        learned: the row that each task was learned in.
        title: of the figure.
    """
    with drawing(*_with_title(CURVES_SIZE), kind=ShownFigure) as figure:
        axes = figure.add_subplot()
        draw_curves(axes, rows, tasks, learned)
        axes.set_title(title)
        return _drawn(figure)


def matrix_plot(rows: ArrayLike, tasks: Sequence[str], learned: Sequence[int], title: str) -> Figure:
    """The accuracy matrix as a heat map (arguments as :func:`curves_plot`)."""
    values = 100 * np.asarray(rows, dtype=float)
    with drawing(*_with_title(matrix_size(len(tasks))), kind=ShownFigure) as figure:
        draw_matrix(figure, values, ["untouched", *tasks][: len(values)], tasks, learned)
        figure.suptitle(title)
        return _drawn(figure)


def zero_shot_plot(curves: dict[str, Sequence[float]], title: str) -> Figure:
    """Accuracy on the zero-shot sets over the stream, in percent.

    Args:
        curves: set → fractions, the untouched model first.
        title: of the figure.
    """
    with drawing(*_with_title(CURVES_SIZE), kind=ShownFigure) as figure:
        axes = figure.add_subplot()
        for place, (name, values) in enumerate(curves.items()):
            shares = [np.nan if value is None else 100 * value for value in values]
            axes.plot(shares, "o-", color=COLOURS[place % len(COLOURS)], label=name)
        axes.set(xlabel="tasks learned", ylabel="zero-shot accuracy %", title=title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if curves:
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
        return _drawn(figure)


def trade_off_plot(found: Content) -> Figure:
    """Accuracy against retention of every method.

    Args:
        found: content of comparison.json.
    """
    return pareto_figure(found, ShownFigure)


def _with_title(size: Sequence[float]) -> tuple[float, ...]:
    """The same drawing with room for a title above."""
    width, height, left, right, bottom, top = size
    return width, height + 0.35, left, right, bottom, top + 0.35


def _drawn(figure: Figure) -> Figure:
    """Drawn once while the style holds, since ticks are made when they are first drawn."""
    figure.canvas.draw()
    return figure
