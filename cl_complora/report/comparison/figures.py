"""The drawings of a comparison's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..point_names import Lettering, NamedPoint, name_points
from ..svg import BLUE, GREEN, INK, LINE, MUTED, PAPER, RED, drawing, inline, plain
from .tables import front

# More names than this would cover one another; then every point has a number.
MOST_NAMES = 12
# More numbers than this are a thicket; then only those have a name that there is room for.
MOST_NUMBERS = 30
# Points this many quartile distances below the lower quartile squeeze all others together.
FAR_OFF = 3.0
_LETTERING = Lettering(INK, MUTED, size=10.5, letter=6.0)


@dataclass(frozen=True)
class Tested:
    """A method on test images: mean and standard deviation over seeds of retention (points) and Last
    (percent); whether it is on the front, where that is not for the figure to find."""

    name: str
    retention: float
    last: float
    retention_spread: float
    last_spread: float
    front: bool | None = None


def far_off(methods: Sequence[Tested]) -> list[Tested]:
    """Methods that lie so far below all others that a figure of many is clearer without them."""
    if len(methods) <= MOST_NUMBERS:
        return []
    lows = []
    for values in ([m.retention for m in methods], [m.last for m in methods]):
        low, high = np.quantile(values, (0.25, 0.75))
        lows.append(low - FAR_OFF * (high - low))
    return [m for m in methods if m.retention < lows[0] or m.last < lows[1]]


def trade_off(methods: Sequence[Tested], prefix: str) -> Markup:
    """Last against retention; filled where no other method is as good in both and better in one."""
    best = front([(m.retention, m.last) for m in methods if m.front is not False])
    with drawing(480, 400) as figure:
        axes = figure.add_axes((0.1, 0.12, 0.88, 0.86))
        axes.plot([x for x, _ in best], [y for _, y in best], color=RED, lw=1, ls=(0, (4, 3)), zorder=1)
        for m in methods:
            on = m.front is not False and (m.retention, m.last) in best
            axes.errorbar(
                m.retention, m.last, xerr=m.retention_spread, yerr=m.last_spread, fmt="D" if on else "o",
                color=RED if on else BLUE, mfc=RED if on else PAPER, ms=7, lw=1, zorder=2,
            )  # fmt: skip
        axes.set_xlabel("retention: change of zero-shot accuracy, points")
        axes.set_ylabel("Last: accuracy after the stream, %")
        axes.grid()
        axes.margins(0.08, 0.08)
        axes.autoscale_view()  # otherwise it happens when drawn, after the labels have been placed
        _name_points(axes, methods)
        told = "; ".join(
            f"{m.name}: Last {m.last:.1f} %, retention {m.retention:+.1f} points" for m in methods
        )
        return inline(figure, prefix, "Trade-off: accuracy against retention", told)


def _name_points(axes: Axes, methods: Sequence[Tested]) -> None:
    """A name beside every point (a number where there are many); of very many the front and those that have
    room."""
    crowded = len(methods) > MOST_NUMBERS
    named = crowded or len(methods) <= MOST_NAMES
    best = front([(m.retention, m.last) for m in methods if m.front is not False])
    points = [
        NamedPoint(
            plain(m.name, 22) if named else str(place),
            m.retention,
            m.last,
            m.retention_spread,
            m.last_spread,
            not crowded or (m.front is not False and (m.retention, m.last) in best),
        )
        for place, m in enumerate(methods, start=1)
    ]
    name_points(axes, points, _LETTERING)


def sweep_curve(method: str, curves: Mapping[str, Sequence[Mapping[str, Any]]], prefix: str) -> Markup:
    """A method's swept values on validation shots, before those of all others; the chosen one is ringed.

    Args:
        method: name.
        curves: method → its points ``{"retention", "last", "chosen"}``.
        prefix: of the ids.
    """
    with drawing(236, 180) as figure:
        axes = figure.add_axes((0.145, 0.15, 0.83, 0.82))
        others = [
            (p["retention"], p["last"]) for name, points in curves.items() if name != method for p in points
        ]
        if others:
            axes.scatter(*zip(*others, strict=True), s=8, color=MUTED, alpha=0.4, lw=0)
        own = [(p["retention"], p["last"]) for p in curves[method]]
        axes.plot(*zip(*front(own), strict=True), color=BLUE, lw=1.2)
        axes.plot(*zip(*own, strict=True), "o", color=BLUE, ms=5)
        for p in curves[method]:
            if p["chosen"]:
                axes.plot(p["retention"], p["last"], "o", mfc="none", mec=RED, mew=1.8, ms=11)
        axes.grid()
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.margins(0.09)
        told = "; ".join(f"Last {last:.1f} % at {retention:+.1f} points" for retention, last in own)
        return inline(figure, prefix, f"Swept values of {method}", told)


def stream_curves(curves: Mapping[str, np.ndarray]) -> dict[str, Markup]:
    """Accuracy on the tasks trained so far, a drawing for every method with the others behind it.

    Args:
        curves: method → ``(seeds, tasks)`` fractions.
    """
    steps = range(1, next(iter(curves.values())).shape[1] + 1)
    means = {name: 100 * values.mean(0) for name, values in curves.items()}
    spreads = {name: 100 * values.std(0, ddof=1) for name, values in curves.items() if len(values) > 1}
    ends = [means[name] + sign * spreads.get(name, 0.0) for name in means for sign in (-1, 1)]
    low, high = float(np.min(ends)), float(np.max(ends))
    room = max(2.0, 0.08 * (high - low))
    drawn = {}
    for number, name in enumerate(curves):
        with drawing(236, 150) as figure:
            axes = figure.add_axes((0.135, 0.17, 0.845, 0.79))
            for other, mean in means.items():
                if other != name:
                    axes.plot(steps, mean, color=LINE, lw=0.9)
            if name in spreads:
                band = (means[name] - spreads[name], means[name] + spreads[name])
                axes.fill_between(steps, *band, color=BLUE, alpha=0.16, lw=0)
            axes.plot(steps, means[name], color=BLUE, lw=2.2, marker="o", ms=4)
            axes.set_ylim(low - room, high + room)
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.grid(axis="y")
            told = f"{means[name][0]:.1f} % after the first task, {means[name][-1]:.1f} % after the last"
            title = f"Accuracy of {name} on the tasks trained so far"
            drawn[name] = inline(figure, f"stream-{number}", title, told)
    return drawn


@dataclass(frozen=True)
class Paired:
    """A method minus the reference in one metric."""

    name: str
    mean: float
    low: float
    high: float
    verdict: str


_LOOKS = {
    "better": {"marker": "^", "color": GREEN, "mfc": GREEN},
    "worse": {"marker": "v", "color": RED, "mfc": RED},
    "not shown": {"marker": "o", "color": MUTED, "mfc": PAPER},
    "too few pairs": {"marker": "s", "color": MUTED, "mfc": PAPER},
}


def differences(rows: Sequence[Paired], metric: str, reference: str, prefix: str) -> Markup:
    """One metric's differences to the reference with their intervals, a line per method."""
    height = 19 * len(rows) + 44
    names = [plain(row.name, 22) for row in rows]
    left = (14 + 6.4 * max(map(len, names))) / 400
    with drawing(400, height) as figure:
        axes = figure.add_axes((left, 36 / height, 0.97 - left, 1 - 42 / height))
        axes.axvline(0, color=MUTED, lw=1)
        for place, row in enumerate(rows):
            look = _LOOKS[row.verdict]
            axes.plot([row.low, row.high], [place, place], color=look["color"], lw=1.6)
            axes.plot(row.mean, place, ms=7, ls="none", **look)
        axes.set_yticks(range(len(rows)), names)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"points, minus {plain(reference, 24)}")
        told = "; ".join(f"{r.name} {r.mean:+.1f} ({r.low:+.1f} to {r.high:+.1f}, {r.verdict})" for r in rows)
        return inline(figure, prefix, f"{metric} of every method minus {reference}", told)
