"""The picture of a stream along the updates of its tasks."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.lines import Line2D

from ..svg import plain
from ..tensorboard.figures import COLOURS, drawing

FORMATS = ("svg", "png", "pdf")
_ROLES = ("this task", "earlier tasks", "later tasks")
# Panels beside one another.
COLUMNS = 3


def scaling_figure(
    factors: Sequence[float], curves: Mapping[str, Mapping[str, Sequence[float]]], form: str
) -> bytes:
    """A panel for every task: accuracy over the factor on its update.

    Args:
        factors: ascending.
        curves: task → line → a fraction for every factor; at least one task.
        form: of :data:`FORMATS`.
    """
    columns = min(COLUMNS, len(curves))
    lines = -(-len(curves) // columns)
    others = {name for curve in curves.values() for name in curve} - set(_ROLES)
    looks = {name: _look(number) for number, name in enumerate((*_ROLES, *sorted(others)))}
    wide, high, legend = 3.0 * columns + 0.8, 2.7 * lines + 0.3, 1.9
    with drawing(wide + legend, high, 0.65, 0.2 + legend, 0.55, 0.35) as figure:
        figure.subplots_adjust(wspace=0.25, hspace=0.45)
        grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
        shown: dict[str, Line2D] = {}
        for axes, (task, curve) in zip(grid.flat, curves.items(), strict=False):
            for name, values in curve.items():
                shown[name] = axes.plot(factors, [100 * value for value in values], **looks[name])[0]
            axes.axvline(1, color="0.6", lw=0.8, ls=":")
            axes.set_title(plain(task, 34), fontsize=10)
            axes.set_ylim(-3, 103)
            axes.grid(alpha=0.3)
        for axes in list(grid.flat)[len(curves) :]:
            axes.remove()
        figure.supxlabel("factor on the task's update (0: left out, 1: as trained)", fontsize=9)
        for axes in grid[:, 0]:
            axes.set_ylabel("accuracy %")
        place = {"loc": "center left", "bbox_to_anchor": (1 - legend / (wide + legend), 0.5)}
        order = [name for name in looks if name in shown]
        labels = [plain(name, 26) for name in order]
        figure.legend([shown[name] for name in order], labels, frameon=False, fontsize=9, **place)
        buffer = io.BytesIO()
        dated = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[form]
        figure.savefig(buffer, format=form, dpi=110, metadata=dated)
    return buffer.getvalue()


def _look(number: int) -> dict[str, object]:
    """The same colour, line and marker for the same thing in every panel, told apart without colour too."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "ls": "-" if number < len(_ROLES) else "--",
        "lw": 1.4 if number else 2.2,
        "marker": "osD^vPX"[number % 7],
        "ms": 4.5,
    }
