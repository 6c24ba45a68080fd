"""The drawings of a run's report: each takes numbers and gives inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from ...metrics import PairedChange
from ..elements import percent
from ..svg import BLUE, GREEN, INK, LINE, MUTED, PAPER, PURPLE, RED, SKY, drawing, inline, plain
from ..tensorboard.layout import LEGIBLE

# More points than a drawing this wide can show are averaged.
MOST_POINTS = 400
# Height of an axis of changes: 5 points.
LEAST_CHANGE = 0.05
# Width of a matrix in a map.
CELL = 15


def _percent_axis(axes: Axes, low: float, high: float) -> None:
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}".replace("-", "−")))
    axes.grid(axis="y")


def _task_axis(axes: Axes, last: int) -> None:
    axes.set_xlim(-0.35, last + 0.35)
    step = max(1, -(-(last + 1) // 8))
    axes.xaxis.set_major_locator(FixedLocator(range(0, last + 1, step)))


def limits(values: Sequence[float], least: float = 0.1) -> tuple[float, float]:
    """A range that holds the finite values with some room, at least ``least`` wide and within 0 to 1."""
    kept = np.asarray(values, dtype=float)
    kept = kept[np.isfinite(kept)]
    low, high = (float(kept.min()), float(kept.max())) if kept.size else (0.0, 1.0)
    room = max(0.06 * (high - low), (least - (high - low)) / 2)
    return max(-0.02, low - room), min(1.02, high + room)


def task_curve(rows: np.ndarray, task: int, tasks: Sequence[str], prefix: str, own: int) -> Markup:
    """Accuracy on one task after every task, before the others' curves where they can be told apart.

    Args:
        rows: ``(t+1, T)`` fractions, the untouched model first.
        task: column, from 0.
        tasks: names.
        prefix: of the ids.
        own: row that it was trained in.
    """
    with drawing(236, 150) as figure:
        axes = figure.add_axes((0.135, 0.17, 0.845, 0.79))
        steps = np.arange(len(rows))
        # A long stream's page would grow with the cube of its tasks.
        for other in range(len(tasks)) if len(tasks) <= LEGIBLE else ():
            if other != task:
                axes.plot(steps, rows[:, other], color=LINE, lw=0.9)
        values = rows[:, task]
        axes.axhline(values[0], color=MUTED, lw=1, ls=(0, (2, 3)))
        axes.plot(steps[: own + 1], values[: own + 1], color=BLUE, lw=1.6, ls=(0, (3, 2)))
        axes.plot(steps[own:], values[own:], color=BLUE, lw=2.2)
        if own < len(rows):
            axes.plot([own], [values[own]], "o", color=BLUE, ms=6)
        _percent_axis(axes, *limits(rows.ravel()))
        _task_axis(axes, len(tasks))
        trained = [f"{100 * value:.1f}" for value in values[own:]]
        told = f"{100 * values[0]:.1f} % by the untouched model"
        if trained:
            told += f", {trained[0]} % after its own training, {trained[-1]} % now"
        return inline(figure, prefix, f"Accuracy on {tasks[task]} over the stream", told)


def so_far_curves(
    curves: dict[str, Sequence[float]], tasks: int, prefix: str, signed: bool, title: str
) -> Markup:
    """Means over the tasks trained so far, each curve labelled at its end.

    Args:
        curves: name → one value per trained task, at most four.
        tasks: of the whole stream.
        prefix: of the ids.
        signed: points around zero instead of percent.
        title: of the drawing.
    """
    looks = [(BLUE, "-", "o"), (RED, (0, (5, 2)), "s"), (GREEN, (0, (1, 1.5)), "^"), (PURPLE, "-.", "D")]
    with drawing(430, 225) as figure:
        axes = figure.add_axes((0.09, 0.18, 0.67, 0.77))
        ends = []
        for (name, values), (colour, line, marker) in zip(curves.items(), looks, strict=False):
            steps = np.arange(1, len(values) + 1)
            axes.plot(steps, values, color=colour, ls=line, lw=2, marker=marker, ms=5)
            ends.append((name, float(values[-1])))
        every = np.concatenate([np.asarray(values, dtype=float) for values in curves.values()])
        low, high = limits(every) if not signed else _around_zero(every)
        _percent_axis(axes, low, high)
        if signed:
            axes.axhline(0, color=MUTED, lw=1)
        axes.set_xlim(0.7, max(2, tasks) + 0.15)
        axes.xaxis.set_major_locator(MaxNLocator(min(12, max(1, tasks)), integer=True))
        axes.set_xlabel("after task")
        for (name, value), height in zip(
            ends, _apart([v for _, v in ends], 0.085 * (high - low)), strict=True
        ):
            shown = f"{name} {percent(value, signed).text}"
            place = (len(next(iter(curves.values()))) + 0.15, height)
            axes.annotate(shown, place, color=INK, va="center", annotation_clip=False)
        told = "; ".join(f"{name} {100 * value:.1f} after the last of them" for name, value in ends)
        return inline(figure, prefix, title, told)


def _around_zero(values: np.ndarray) -> tuple[float, float]:
    kept = values[np.isfinite(values)]
    low, high = min(0.0, float(kept.min(initial=0))), max(0.0, float(kept.max(initial=0)))
    # Never less than five points high: tenths of a point must not look like a fall.
    room = max(0.08 * (high - low), (LEAST_CHANGE - (high - low)) / 2, 0.01)
    return low - room, high + room


def _apart(values: Sequence[float], least: float) -> list[float]:
    """The values moved until neighbours are ``least`` apart, in their order."""
    order = np.argsort(values, kind="stable")
    moved = np.array(values, dtype=float)[order]
    for _ in range(50):
        gaps = np.diff(moved)
        if not (gaps < least * 0.999).any():
            break
        for place in np.flatnonzero(gaps < least):
            push = (least - (moved[place + 1] - moved[place])) / 2
            moved[place] -= push
            moved[place + 1] += push
    back = np.empty_like(moved)
    back[order] = moved
    return back.tolist()


@dataclass(frozen=True)
class Fate:
    """What became of a task: accuracy of the untouched model, right after training, at best, and now."""

    task: str
    untouched: float
    learned: float
    best: float
    last: float


def fates(tasks: Sequence[Fate], prefix: str) -> Markup:
    """Per task the way from untouched to learned to now, on one line."""
    height = 26 * len(tasks) + 74
    with drawing(460, height) as figure:
        names = [plain(fate.task, 16) for fate in tasks]
        left = (16 + 6.6 * max(map(len, names))) / 460
        axes = figure.add_axes((left, 44 / height, 0.98 - left, 1 - 72 / height))
        for place, fate in enumerate(tasks):
            axes.plot([fate.untouched, fate.learned], [place, place], color=LINE, lw=1.5)
            axes.plot(
                [fate.last, fate.best], [place, place], color=RED, lw=5, alpha=0.55, solid_capstyle="butt"
            )
        rows = range(len(tasks))
        looks = {"untouched": ("|", MUTED, 11), "just trained": ("s", SKY, 7), "best since": ("D", GREEN, 7),
                 "now": ("o", BLUE, 8)}  # fmt: skip
        values = zip(*((f.untouched, f.learned, f.best, f.last) for f in tasks), strict=True)
        for (label, (marker, colour, size)), shown in zip(looks.items(), values, strict=True):
            edge = {"mec": PAPER, "mew": 0.8} if marker != "|" else {"mew": 2}
            axes.plot(shown, rows, marker, color=colour, ms=size, label=label, **edge)
        axes.set_yticks(rows, names)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(tasks) - 0.4, -0.6)
        axes.set_xlim(*limits([v for f in tasks for v in (f.untouched, f.learned, f.best, f.last)]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
        axes.set_xlabel("accuracy, %")
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        figure.legend(loc="upper left", ncols=4, frameon=False, bbox_to_anchor=(0, 1.0), borderaxespad=0,
                      handletextpad=0.3, columnspacing=1.3)  # fmt: skip
        lost = "; ".join(f"{f.task}: {100 * (f.best - f.last):.1f} points forgotten" for f in tasks)
        return inline(figure, prefix, "What became of every task", lost)


def band(
    values: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
    last: int,
    name: str,
    prefix: str,
    what: str = "Zero-shot accuracy",
) -> Markup:
    """What is measured on a set over the stream, with 95 % intervals, against where it began."""
    with drawing(430, 210) as figure:
        axes = figure.add_axes((0.09, 0.19, 0.88, 0.76))
        steps = np.arange(len(values))
        axes.fill_between(steps, lows, highs, color=BLUE, alpha=0.16, lw=0)
        axes.axhline(values[0], color=MUTED, lw=1, ls=(0, (2, 3)))
        axes.plot(steps, values, color=BLUE, lw=2.2, marker="o", ms=5)
        _percent_axis(axes, *limits([*lows, *highs, *values]))
        _task_axis(axes, last)
        axes.set_xlabel("after task (0: untouched)")
        told = (
            f"{100 * values[0]:.1f} % before the stream, {100 * values[-1]:.1f} % after task"
            f" {len(values) - 1}"
        )
        return inline(figure, prefix, f"{what} on {name} over the stream", told)


def change_curves(
    changes: dict[str, tuple[int, Sequence[PairedChange]]], last: int, prefix: str
) -> dict[str, Markup]:
    """Change of accuracy since a task was just trained, with 95 % intervals; all tasks share the axis.

    Args:
        changes: task → (its place, from 1; a change after every later task).
        last: number of tasks of the stream.
        prefix: of the ids.
    """
    every = [v for _, curve in changes.values() for c in curve for v in (c.low, c.high)]
    low, high = _around_zero(np.array(every))
    drawn = {}
    for name, (place, curve) in changes.items():
        with drawing(236, 150) as figure:
            axes = figure.add_axes((0.135, 0.17, 0.845, 0.79))
            steps = np.arange(place, place + 1 + len(curve))
            bounds = ([0.0, *(getattr(c, end) for c in curve)] for end in ("low", "high"))
            axes.fill_between(steps, *bounds, color=BLUE, alpha=0.16, lw=0)
            axes.axhline(0, color=MUTED, lw=1, ls=(0, (2, 3)))
            axes.plot(steps, [0.0, *(c.change for c in curve)], color=BLUE, lw=2.2)
            axes.plot([place], [0.0], "o", color=BLUE, ms=6)
            _percent_axis(axes, low, high)
            _task_axis(axes, last)
            end = curve[-1]
            told = f"{100 * end.change:+.1f} points now, 95 % interval {100 * end.low:+.1f} to"
            told += f" {100 * end.high:+.1f}"
            title = f"Change of accuracy on {name} since it was just trained"
            drawn[name] = inline(figure, f"{prefix}-{place}", title, told)
    return drawn


def loss_curve(losses: Sequence[float], highest: float, task: str, prefix: str) -> Markup:
    """Training loss of one task by step.

    Args:
        losses: one value a step.
        highest: of all tasks, so that they share the axis.
        task: its name.
        prefix: of the ids.
    """
    values = np.asarray(losses, dtype=float)
    steps, shown = thinned(values)
    with drawing(236, 130) as figure:
        axes = figure.add_axes((0.135, 0.2, 0.845, 0.74))
        axes.plot(steps, shown, color=BLUE, lw=1.4)
        axes.set_ylim(0, 1.05 * highest or 1)
        axes.set_xlim(0, len(values) + 1)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(axis="y")
        told = f"{len(values)} steps, from {values[0]:.3g} at the first to {values[-1]:.3g} at the last"
        return inline(figure, prefix, f"Training loss of {task}", told)


def smoothed(values: np.ndarray) -> np.ndarray:
    """Mean of each value and those of a twentieth of all on either side, fewer at the ends; what is NaN is
    left out."""
    known, half, places = np.isfinite(values), len(values) // 20, np.arange(len(values))
    starts, ends = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    sums, counts = (
        np.concatenate([[0.0], np.cumsum(each)])[ends] - np.concatenate([[0.0], np.cumsum(each)])[starts]
        for each in (np.where(known, values, 0.0), known)
    )
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)


def accuracy_curve(shares: Sequence[float], task: str, prefix: str) -> Markup:
    """Accuracy on the batches of one task by step, smoothed before that of every batch.

    Args:
        shares: one fraction a step; NaN where it is not known.
        task: its name.
        prefix: of the ids.
    """
    values = 100 * np.asarray(shares, dtype=float)
    means = smoothed(values)
    with drawing(236, 130) as figure:
        axes = figure.add_axes((0.135, 0.2, 0.845, 0.74))
        axes.plot(*thinned(values), color=MUTED, lw=0.8, alpha=0.5)
        axes.plot(*thinned(means), color=BLUE, lw=1.8)
        axes.set_ylim(0, 103)
        axes.set_xlim(0, len(values) + 1)
        axes.set_yticks(range(0, 101, 25))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(axis="y")
        known = means[np.isfinite(means)]
        told = f"{len(values)} steps, smoothed from {known[0]:.0f} % to {known[-1]:.0f} %"
        return inline(figure, prefix, f"Accuracy on the training batches of {task}", told)


def thinned(values: np.ndarray, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """(steps from 1, values): means of equal stretches where there are more than ``most`` values."""
    width = max(1, -(-len(values) // most))
    starts = np.arange(0, len(values), width)
    ends = np.minimum(starts + width, len(values))
    means = np.array([values[start:end].mean() for start, end in zip(starts, ends, strict=True)])
    return (starts + 1 + ends) / 2, means


@dataclass(frozen=True)
class LayerMap:
    """A measure of every matrix of a tower after one task: ``(layers, kinds)``, NaN where there is no such
    matrix."""

    tower: str
    layers: tuple[str, ...]
    kinds: tuple[str, ...]
    values: np.ndarray


def layer_maps(
    maps: dict[str, list[LayerMap]],
    measure: str,
    digits: str,
    prefix: str,
    scale: tuple[float, float] | None = None,
) -> Markup:
    """A measure as small heat maps: a column of them per task, a row per tower, one scale for all.

    Args:
        maps: task → one map per tower, the same towers for every task.
        measure: its name, for the scale.
        digits: format of the scale's numbers.
        prefix: of the ids.
        scale: ends of the colours; from 0 to the largest value where there is none.
    """
    tasks, towers = list(maps), next(iter(maps.values()))
    # A map is as wide as the widest tower's, and an empty column keeps it from the next.
    wide = max(max(len(tower.kinds) for tower in towers), 4)
    heights = [len(tower.layers) * (15 if len(tower.layers) <= 16 else 10) for tower in towers]
    span = CELL * (len(tasks) * (wide + 1) - 1)
    left, right, top, below = 122, 14, 24, 34
    width, height = left + span + right, top + sum(heights) + below * len(towers)
    values = np.concatenate([m.values.ravel() for parts in maps.values() for m in parts])
    low, high = scale or _scale_of(values)
    with drawing(width, height) as figure:
        upper = height - top
        for row, tower in enumerate(towers):
            axes = figure.add_axes(
                (left / width, (upper - heights[row]) / height, span / width, heights[row] / height)
            )
            upper -= heights[row] + below
            joined = np.full((len(tower.layers), len(tasks) * (wide + 1) - 1), np.nan)
            for column, task in enumerate(tasks):
                start = column * (wide + 1)
                joined[:, start : start + len(tower.kinds)] = maps[task][row].values
            picture = axes.imshow(
                joined, cmap="cividis", vmin=low, vmax=high, aspect="auto", interpolation="none"
            )
            _label_maps(axes, tower, len(tasks), wide)
            if row == 0:
                for column, task in enumerate(tasks):
                    middle = column * (wide + 1) + (len(tower.kinds) - 1) / 2
                    name = plain(task, CELL * (wide + 1) // 7)
                    axes.annotate(
                        name, (middle, 1), (0, 6), ("data", "axes fraction"), "offset points", ha="center"
                    )
        tall = max(heights[0], 60)
        bar = figure.add_axes((2 / width, 1 - (top + tall) / height, 11 / width, tall / height))
        figure.colorbar(picture, cax=bar).outline.set_visible(False)
        bar.yaxis.set_major_locator(MaxNLocator(4))
        bar.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format(value, digits)))
        described = f"Colours from {low:{digits}} to {high:{digits}}; the table below has every one."
        return inline(figure, prefix, f"{measure} of every matrix after every task", described)


def _scale_of(values: np.ndarray) -> tuple[float, float]:
    kept = values[np.isfinite(values)]
    low, high = min(0.0, float(kept.min(initial=0))), float(kept.max(initial=0))
    return low, high if high > low else low + 1


def _label_maps(axes: Axes, tower: LayerMap, tasks: int, wide: int) -> None:
    upright = max(map(len, tower.kinds)) > 2
    look = {"fontsize": 9, "color": MUTED, "ha": "center", "va": "top", "rotation": 90 if upright else 0}
    for column in range(tasks):
        for place, kind in enumerate(tower.kinds):  # as texts: hundreds of ticks would take seconds
            axes.text(column * (wide + 1) + place, len(tower.layers) - 0.3, kind, **look)
    axes.set_xticks([])
    step = max(1, -(-len(tower.layers) // 12))
    axes.set_yticks(range(0, len(tower.layers), step), tower.layers[::step], fontsize=9)
    axes.set_ylabel(tower.tower, color=INK, labelpad=6)
    for spine in axes.spines.values():
        spine.set_visible(False)
