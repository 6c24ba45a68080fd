"""The trade between learning and keeping, as a picture."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...files import write_bytes
from ..point_names import Lettering, NamedPoint, name_points
from .tables import Content, front, kept, methods_of, spread, whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LETTERING = Lettering("black", "0.5", size=9, letter=5.3)
# More methods than this need a larger picture for their names.
_ROOMY = 16
# Of very many, only the front and those that have room are named; the report's tables have all.
_CROWDED = 40
# Places along a line between two swept values that names keep away from.
_ALONG = 10


def pareto(found: Content, path: Path) -> None:
    """Save :func:`pareto_figure` as a PNG file."""
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    pareto_figure(found, Figure).savefig(buffer, format="png", dpi=110)
    write_bytes(path, buffer.getvalue())


def pareto_figure(found: Content, kind: type[Figure]) -> Figure:
    """Last against retention: left the whole sweep with every method's front, right the tested settings.

    Every method has its name at its point; left that of its chosen settings.

    Args:
        found: content of comparison.json.
        kind: class of the figure.
    """
    methods = methods_of(found)
    swept = any(m["curve"] for m in methods)
    scale = 1.0 if len(methods) <= _ROOMY else 1.35
    figure = kind(figsize=(scale * (14 if swept else 8), scale * 5.5), layout="constrained")
    axes = figure.subplots(1, 2 if swept else 1, squeeze=False)[0]
    tried = _draw_sweeps(axes[0], methods)
    tested = _draw_tested(axes[-1], methods)
    seeds = len(found["request"]["seeds"])
    if swept:
        axes[0].set_title("every swept value, on validation shots; named: the chosen ones")
    settings = "chosen settings, on test images" if swept else "on test images"
    axes[-1].set_title(f"{settings}, {seeds} {'seed' if seeds == 1 else 'seeds'}")
    for axis in axes:
        axis.set_xlabel("retention: points of zero-shot accuracy after the stream")
        axis.set_ylabel("Last: mean accuracy after the last task, %")
        axis.grid(alpha=0.3)
        axis.margins(0.1, 0.08)
    figure.suptitle(found["scenario"], parse_math=False)
    # Names are placed in the axes as they will be drawn.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis, (named, others) in ((axes[0], tried), (axes[-1], (tested, []))):
        name_points(axis, named, _LETTERING, others)
    return figure


def _look(place: int) -> dict[str, str]:
    """Colour and marker of a method; no two of the first seventy have the same."""
    from ..tensorboard.figures import COLOURS

    return {"color": COLOURS[place % len(COLOURS)], "marker": "osD^vPX*<>"[place % 10]}


def _draw_sweeps(
    axes: Axes, methods: Sequence[Mapping[str, Any]]
) -> tuple[list[NamedPoint], list[tuple[float, float]]]:
    """Every swept value; the chosen ones, larger, with their names, and what these should not cover."""
    from ..svg import plain

    named, others = [], []
    for place, m in enumerate(methods):
        look = _look(place)
        drawn = [p for p in m["curve"] if p["error"] is None and math.isfinite(kept(p["retention"]))]
        points = [(p["retention"], p["last"]) for p in drawn]
        if points:
            chosen = [p["settings"] == m["chosen"] for p in drawn]
            sizes = [52 if one else 18 for one in chosen]
            axes.scatter(*zip(*points, strict=True), s=sizes, alpha=0.6, **look)
            line = front(points)
            axes.plot(*zip(*line, strict=True), color=look["color"], lw=1)
            if any(chosen):
                named.append(NamedPoint(plain(m["name"], 26), *points[chosen.index(True)]))
            others += [point for point, one in zip(points, chosen, strict=True) if not one]
            for one, other in itertools.pairwise(line):
                others += [tuple(point) for point in np.linspace(one, other, _ALONG)]
    return named, others


def _draw_tested(axes: Axes, methods: Sequence[Mapping[str, Any]]) -> list[NamedPoint]:
    """Means over seeds with standard deviations; their names."""
    from ..svg import plain

    figures = []
    for place, m in enumerate(methods):
        retention, last = (whole(m["figures"].get(key)) for key in ("retention", "last"))
        if retention and last:
            x, y = float(np.mean(retention)), float(np.mean(last))
            spreads = (spread(retention), spread(last))
            axes.errorbar(x, y, xerr=spreads[0], yerr=spreads[1], ms=7, lw=1, **_look(place))
            figures.append((plain(m["name"], 26), x, y, *spreads))
    crowded, best = len(figures) > _CROWDED, front([(x, y) for _, x, y, *_ in figures])
    return [NamedPoint(*told, needed=not crowded or told[1:3] in best) for told in figures]
