"""Names beside the points of a drawing, in place of a legend whose colours would repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Left, bottom, right, top, in points from the figure's lower left corner.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class NamedPoint:
    """A point and its name.

    Attributes:
        name: what is written.
        x, y: in data coordinates.
        x_spread, y_spread: lengths of its error bars to either side.
        needed: it is named although there is no room.
    """

    name: str
    x: float
    y: float
    x_spread: float = 0.0
    y_spread: float = 0.0
    needed: bool = True


@dataclass(frozen=True)
class Lettering:
    """How names are written: colours of letters and of lines to the points, size and mean width of a letter
    in points."""

    ink: str
    line: str
    size: float
    letter: float


def name_points(
    axes: Axes,
    points: Sequence[NamedPoint],
    lettering: Lettering,
    others: Sequence[tuple[float, float]] = (),
) -> None:
    """Write a name beside every point where it covers least, with a line to it where it had to move away.

    What is not needed is left out where there is no room right beside its point. The limits of the axes must
    stand: names are placed once and keep their distances from their points.

    Args:
        axes: of the drawing.
        points: all that have a name.
        lettering: how to write.
        others: points without a name, which no name should cover.
    """
    if not points:
        return
    to_points = 72 / axes.figure.dpi

    def placed(positions: Sequence[tuple[float, float]]) -> np.ndarray:
        return axes.transData.transform(np.asarray(positions, dtype=float).reshape(-1, 2)) * to_points

    middles = placed([(p.x, p.y) for p in points])
    corners = placed([(p.x + p.x_spread, p.y + p.y_spread) for p in points])
    frame = axes.get_window_extent().extents * to_points + np.array([3, 3, -3, -3])
    taken = [_around(x, y, 7, 7) for x, y in middles]
    for (x, y), (right, top) in zip(middles, corners, strict=True):
        taken += [_around(x, y, right - x, 5), _around(x, y, 5, top - y)]  # the bars
    taken += [_around(x, y, 3, 3) for x, y in placed(others)]
    for place in sorted(range(len(points)), key=lambda place: not points[place].needed):
        point, (x, y) = points[place], middles[place]
        box, moved = _place_label(lettering.letter * len(point.name) + 2, x, y, taken, frame)
        if not point.needed and (moved or any(_covered(box, other) for other in taken)):
            continue
        taken.append(box)
        _write(axes, point, box, (x, y), moved, lettering)


def _write(
    axes: Axes, point: NamedPoint, box: Box, at: tuple[float, float], moved: bool, lettering: Lettering
) -> None:
    x, y = at
    height = (box[1] + box[3]) / 2
    if x <= box[0]:
        near, side = box[0], "left"
    elif x >= box[2]:
        near, side = box[2], "right"
    else:
        near, side = (box[0] + box[2]) / 2, "center"
    beside = {"xy": (point.x, point.y), "textcoords": "offset points"}
    if moved:
        line = {"arrowstyle": "-", "color": lettering.line, "lw": 0.7, "shrinkA": 1, "shrinkB": 5}
        axes.annotate("", xytext=(near - x, height - y), arrowprops=line, **beside)
    axes.annotate(
        point.name, xytext=(near - x, height - y), ha=side, va="center",
        color=lettering.ink, fontsize=lettering.size, parse_math=False, **beside,
    )  # fmt: skip


def _around(x: float, y: float, wide: float, high: float) -> Box:
    return (x - wide, y - high, x + wide, y + high)


def _place_label(
    wide: float, x: float, y: float, taken: Sequence[Box], frame: Sequence[float]
) -> tuple[Box, bool]:
    """The box near a point that covers least of what is there, and whether it is not right beside the
    point."""
    places = []
    for far in (10, 20, 32, 46, 62):
        for side, up in ((1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1)):
            left = x + far if side > 0 else x - far - wide if side < 0 else x - wide / 2
            middle = y + up * far
            box = (left, middle - 7, left + wide, middle + 7)
            outside = max(0, frame[0] - box[0], box[2] - frame[2]) + max(
                0, frame[1] - box[1], box[3] - frame[3]
            )
            moved = far > 10 or up != 0
            places.append(
                (sum(_covered(box, other) for other in taken) + 50 * outside + far + 8 * moved, box, moved)
            )
    _, box, moved = min(places)
    return box, moved


def _covered(one: Sequence[float], other: Sequence[float]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide * high if wide > 0 and high > 0 else 0.0
