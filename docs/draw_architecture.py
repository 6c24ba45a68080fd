"""Draws img/architecture.svg: the rooms, who imports whom, how a task travels. Run: python
docs/draw_architecture.py"""

from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INK, QUIET, ROAD = "#1b1f24", "#6b7280", "#d55e00"
FILLS = {"plain": "#eef2f7", "heavy": "#e3edf9", "avalanche": "#fdf0dc", "view": "#e8f5ec"}

# name: (x, y, width, kind, what it does)
ROOMS = {
    "scenario.yaml + strategy.yaml": (0.1, 8.6, 4.3, "plain", "what is learned, and how"),
    "config/": (0.1, 7.2, 2.0, "plain", "schema, file:line errors"),
    "metrics.py": (7.75, 5.6, 2.1, "plain", "matrix → numbers"),
    "subspace.py": (2.9, 7.2, 2.1, "heavy", "principal, complement"),
    "lowrank.py, delta.py": (5.3, 7.2, 2.1, "heavy", "factors; what is merged"),
    "data/": (0.1, 5.6, 3.3, "heavy", "sources · shots · pixels · world"),
    "clip/": (4.0, 5.6, 3.4, "heavy", "load · slots · text head · logits"),
    "rundir.py": (7.75, 4.0, 1.6, "plain", "atomic files, lock"),
    "engine/": (2.0, 4.0, 5.4, "avalanche", "CompLoRAPlugin · ClipStrategy · EWC, LwF, replay · Avalanche"),
    "run.py": (2.9, 2.5, 3.6, "heavy", "one scenario × strategy × seed"),
    "report/": (7.75, 2.5, 2.1, "view", "tables, TensorBoard"),
    "cli.py": (0.1, 1.0, 2.1, "plain", "a thin shell"),
    "compare/": (0.1, 2.5, 2.1, "view", "sweeps, table, who is better"),
    "runs/…/results.json": (2.9, 1.0, 3.6, "view", "matrix, retention, deltas"),
}
# Imports, importer first; a room may import only what stands above it.
IMPORTS = [
    ("data/", "config/"),
    ("clip/", "lowrank.py, delta.py"),
    ("clip/", "data/"),
    ("engine/", "clip/"),
    ("engine/", "subspace.py"),
    ("engine/", "data/"),
    ("run.py", "engine/"),
    ("run.py", "report/"),
    ("run.py", "rundir.py"),
    ("compare/", "run.py"),
    ("cli.py", "compare/"),
    ("cli.py", "run.py"),
    ("compare/", "config/"),
]
# Drawn past the room that stands between.
DETOUR = ((9.62, 3.45), (9.62, 5.6))
ROAD_STOPS = ["scenario.yaml + strategy.yaml", "config/", "data/", "engine/", "run.py", "runs/…/results.json"]
HEIGHT = 0.95


def centre(name: str) -> tuple[float, float]:
    x, y, width, *_ = ROOMS[name]
    return x + width / 2, y + HEIGHT / 2


def edge(name: str, towards: str) -> tuple[float, float]:
    """Point on the border of a room in the direction of another."""
    (x, y), (tx, ty) = centre(name), centre(towards)
    half = ROOMS[name][2] / 2
    dx, dy = tx - x, ty - y
    scale = min(half / abs(dx) if dx else 9, (HEIGHT / 2) / abs(dy) if dy else 9)
    return x + dx * scale, y + dy * scale


figure = Figure(figsize=(10, 9.4))
FigureCanvasSVG(figure)
axes = figure.add_axes((0, 0, 1, 1))
axes.set(xlim=(0, 10), ylim=(0.35, 9.75))
axes.set_axis_off()
for name, (x, y, width, kind, text) in ROOMS.items():
    box = FancyBboxPatch(
        (x, y), width, HEIGHT, boxstyle="round,pad=0,rounding_size=0.12", fc=FILLS[kind], ec=INK, lw=1
    )
    axes.add_patch(box)
    axes.text(
        x + width / 2, y + 0.62, name, ha="center", va="center", fontsize=11.5, weight="bold", color=INK
    )
    axes.text(x + width / 2, y + 0.28, text, ha="center", va="center", fontsize=8.6, color=QUIET)
for importer, imported in IMPORTS:
    arrow = FancyArrowPatch(
        edge(importer, imported), edge(imported, importer), arrowstyle="-|>", mutation_scale=11
    )
    arrow.set(color=QUIET, lw=1, zorder=0.5)
    axes.add_patch(arrow)
axes.add_patch(FancyArrowPatch(*DETOUR, arrowstyle="-|>", mutation_scale=11, color=QUIET, lw=1))
for start, end in zip(ROAD_STOPS, ROAD_STOPS[1:], strict=False):
    (x0, y0), (x1, y1) = edge(start, end), edge(end, start)
    axes.add_patch(
        FancyArrowPatch(
            (x0 - 0.12, y0), (x1 - 0.12, y1), arrowstyle="-|>", mutation_scale=16, color=ROAD, lw=2.4
        )
    )
axes.plot([6.9, 7.3], [0.75, 0.75], color=QUIET, lw=1)
axes.text(7.4, 0.75, "who imports whom", fontsize=9, va="center", color=INK)
axes.plot([6.9, 7.3], [0.5, 0.5], color=ROAD, lw=2.4)
axes.text(7.4, 0.5, "the way of a task", fontsize=9, va="center", color=INK)
figure.savefig(Path(__file__).parent / "img" / "architecture.svg", metadata={"Date": None})
