"""Pictures for TensorBoard: small raster figures on white, drawn without pyplot's global state."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ..heat_map import only_rounding, share_scale
from ..svg import plain
from .layout import LEGIBLE

if TYPE_CHECKING:
    from torch import Tensor

    from ...analysis.mistakes import Mistake

# Okabe and Ito's palette: told apart with any kind of colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_STYLES = ("-", "--", ":", "-.")
_SETTINGS = {"text.parse_math": False, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


@contextmanager
def drawing(
    width: float,
    height: float,
    left: float,
    right: float,
    bottom: float,
    top: float,
    kind: type[Figure] = Figure,
) -> Iterator[Figure]:
    """A figure of fixed margins, all in inches: matplotlib's layout engines take as long again as the
    drawing."""
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font lacks is drawn as a box
        figure = kind(figsize=(width, height), dpi=90)
        figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
        FigureCanvasAgg(figure)
        yield figure


def image_of(figure: Figure) -> np.ndarray:
    """``height × width × 3`` uint8."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def matrix_image(rows: ArrayLike, tasks: Sequence[str], learned: Sequence[int]) -> np.ndarray:
    """The accuracy matrix as a heat map in percent; empty where nothing was measured or the task is still to
    come.

    Args:
        rows: ``(t+1, T)`` fractions, the untouched model first.
        tasks: T names.
        learned: the row that each task was learned in.
    """
    values = 100 * np.full((len(tasks) + 1, len(tasks)), np.nan)
    measured = 100 * np.asarray(rows, dtype=float)
    values[: len(measured)] = measured
    with drawing(*matrix_size(len(tasks))) as figure:
        draw_matrix(figure, values, ["untouched", *tasks], tasks, learned)
        return image_of(figure)


def matrix_size(tasks: int) -> tuple[float, float, float, float, float, float]:
    """Width, height and margins of :func:`draw_matrix` in inches, as :func:`drawing` takes them."""
    side = max(2.6, 0.55 * min(tasks, LEGIBLE))
    return side + 2.65, side + 1.4, 1.6, 1.05, 1.2, 0.2


def draw_matrix(
    figure: Figure, values: np.ndarray, states: Sequence[str], columns: Sequence[str], learned: Sequence[int]
) -> None:
    """A heat map in percent; the cell of the task just trained is bold.

    Args:
        figure: empty, of :func:`matrix_size`.
        values: ``(states, columns)`` percent; NaN stays empty.
        states: names of the rows, the untouched model first.
        columns: names of the columns, in the order that the tasks were trained in.
        learned: the row that each column's task was learned in.
    """
    every = -(-len(columns) // LEGIBLE)
    axes = figure.add_subplot()
    picture = axes.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(
        range(0, len(columns), every), [plain(c, 14) for c in columns][::every], rotation=45, ha="right"
    )
    axes.set_yticks(range(0, len(states), every), [plain(s, 14) for s in states][::every])
    axes.set_ylabel("after")
    for (i, j), value in np.ndenumerate(values if every == 1 else values[:0]):
        if np.isfinite(value):
            style = {
                "weight": "bold" if i == learned[j] else "normal",
                "color": "white" if value < 60 else "black",
            }
            axes.text(j, i, f"{value:.1f}", ha="center", va="center", **style)
    edge = axes.get_position()
    inch = 1 / figure.get_figwidth()
    bar = figure.add_axes((edge.x1 + 0.15 * inch, edge.y0, 0.15 * inch, edge.height))
    figure.colorbar(picture, cax=bar, label="accuracy %")


def curves_image(rows: ArrayLike, tasks: Sequence[str], learned: Sequence[int]) -> np.ndarray:
    """Accuracy on every task over the stream; a dot where it was learned (arguments as
    :func:`draw_curves`)."""
    with drawing(*CURVES_SIZE) as figure:
        draw_curves(figure.add_subplot(), rows, tasks, learned)
        return image_of(figure)


# Width, height and margins of a drawing of curves, in inches.
CURVES_SIZE = (6.8, 3.8, 0.6, 1.75, 0.5, 0.15)


def draw_curves(axes: Axes, rows: ArrayLike, tasks: Sequence[str], learned: Sequence[int]) -> None:
    """Accuracy on every task over the stream, in percent.

    Args:
        axes: empty.
        rows: ``(t+1, T)`` fractions, the untouched model first.
        tasks: T names.
        learned: the row that each task was learned in.
    """
    values = 100 * np.asarray(rows, dtype=float)
    for j, task in enumerate(tasks):
        colour, style = COLOURS[j % len(COLOURS)], _STYLES[j // len(COLOURS) % len(_STYLES)]
        axes.plot(values[:, j], color=colour, linestyle=style, label=plain(task, 18))
        if (own := learned[j]) < len(values):
            axes.plot([own], [values[own, j]], "o", color=colour, markersize=5)
    axes.set(xlabel="tasks learned", ylabel="accuracy %", xlim=(-0.1, len(tasks) + 0.1))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    if len(tasks) <= LEGIBLE:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)


def spectra_image(matrices: dict[str, dict[str, Any]]) -> np.ndarray:
    """Change of the singular values by a task, of the matrices whose spectrum moved most: drawn as they are,
    before and after lie on each other.

    Args:
        matrices: as in the run's ``analysis/`` files.
    """
    from ...clip.matrix_names import place_of

    ranked = sorted(matrices, key=lambda name: -_moved(matrices[name]))[:6]
    with drawing(8.4, 4.4, 0.75, 0.15, 0.4, 0.3) as figure:
        figure.subplots_adjust(wspace=0.35, hspace=0.3)
        for place, name in enumerate(ranked, start=1):
            axes = figure.add_subplot(2, 3, place)
            before, after = _spectra(matrices[name])
            if before.shape == after.shape and before.max(initial=0) > 0:
                change = 100 * (after - before) / before.max()
                axes.plot(np.linspace(0, 1, len(change)), change, color=COLOURS[0])
            axes.axhline(0, color="0.6", lw=0.8)
            at = place_of(name)
            axes.set_title(f"{at.tower} {at.layer} {at.kind}", fontsize=9)
            axes.set_xticks([])
            axes.grid(alpha=0.3)
        figure.supxlabel("singular values, largest to smallest", fontsize=9)
        figure.supylabel("change by the task, % of the largest", fontsize=9)
        return image_of(figure)


def _spectra(figures: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    before, after = (np.asarray(figures[key], dtype=float) for key in ("spectrum_before", "spectrum_after"))
    return before, after


def _moved(figures: dict[str, Any]) -> float:
    before, after = _spectra(figures)
    return float(np.linalg.norm(after - before)) if before.shape == after.shape else 0.0


def layers_image(matrices: dict[str, dict[str, Any]], measures: dict[str, str]) -> np.ndarray:
    """Measures of a task's update as heat maps, layer × matrix kind, a row per tower.

    Args:
        matrices: as in the run's ``analysis/`` files.
        measures: key → title; all but ``delta_norm``, which starts at 0, are shares on the scale of shares.
    """
    from ...clip.matrix_names import kinds_in_order, place_of

    places = {name: place_of(name) for name in matrices}
    towers = [tower for tower in ("vision", "text") if any(at.tower == tower for at in places.values())]
    with drawing(2.6 * len(measures) + 0.6, 2.7 * len(towers) + 0.3, 0.5, 0.15, 0.3, 0.4) as figure:
        figure.subplots_adjust(wspace=0.25, hspace=0.3)
        grid = figure.subplots(len(towers), len(measures), squeeze=False)
        for row, tower in enumerate(towers):
            inside = {name: at for name, at in places.items() if at.tower == tower}
            layers = sorted({at.blocks for at in inside.values()})
            kinds = kinds_in_order({at.kind for at in inside.values()})
            for column, (key, title) in enumerate(measures.items()):
                values = np.full((len(layers), len(kinds)), np.nan)
                for name, at in inside.items():
                    value = matrices[name].get(key)
                    if value is not None:
                        values[layers.index(at.blocks), kinds.index(at.kind)] = value
                axes = grid[row][column]
                low, high = _scale(key, [figures.get(key) for figures in matrices.values()])
                axes.imshow(values, cmap="cividis", aspect="auto", vmin=low, vmax=high)
                axes.set_xticks(range(len(kinds)), [plain(kind, 8) for kind in kinds], fontsize=7)
                axes.set_yticks(
                    range(len(layers)), [".".join(map(str, layer)) or "–" for layer in layers], fontsize=7
                )
                # The ends of the scale in words: a bar beside each map takes as long as the map.
                told = f"{low:.2g} (dark) to {high:.2g} (light)"
                if key != "delta_norm" and only_rounding(values):
                    told = f"none beyond rounding (at most {np.nanmax(values, initial=0.0):.0e})"
                axes.set_title(f"{tower}: {title}\n{told}", fontsize=8)
        return image_of(figure)


def _scale(key: str, values: Sequence[float | None]) -> tuple[float, float]:
    """Ends of a measure's colours, the same for both towers."""
    known = np.array([np.nan if value is None else value for value in values], dtype=float)
    return (0.0, float(np.nanmax(known, initial=0.0)) or 1.0) if key == "delta_norm" else share_scale(known)


def mistakes_image(mistakes: Sequence[tuple[str, Mistake]], pictures: Tensor) -> np.ndarray:
    """Test images of earlier tasks that a task made wrong, the most confident first.

    Args:
        mistakes: (earlier task, what became of the image).
        pictures: ``N × 3 × H × W`` uint8, one a mistake.
    """
    columns = min(4, len(mistakes))
    lines = -(-len(mistakes) // columns)
    with drawing(2.1 * columns, 2.55 * lines, 0.1, 0.1, 0.1, 0.6) as figure:
        figure.subplots_adjust(wspace=0.1, hspace=0.4)
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for axes, (task, one), picture in zip(grid.flat, mistakes, pictures, strict=False):
            axes.imshow(picture.permute(1, 2, 0).numpy())
            told = (
                f"{plain(task, 16)}\n{plain(one.truth, 24)}\n→ {plain(one.answer, 22)}"
                f" {100 * one.share:.0f} %"
            )
            axes.set_title(told, fontsize=8)
        return image_of(figure)
