"""Draws img/architecture.svg: the way of a task through the rooms, and who may import whom. Run: python
docs/draw_architecture.py [FILE]"""

import sys
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INK, QUIET, ROAD = "#1b1f24", "#5b6472", "#c2500a"
FILLS = {"way": "#fdf0dc", "view": "#e3f2e8", "file": "#ffffff", "ground": "#e6edf7", "shell": "#eeeff2"}
OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "img" / "architecture.svg"

# name: (x, y, width, height, kind, what it does). A room imports only rooms that are drawn below it.
ROOMS = {
    "cli/": (0.3, 12.45, 4.5, 0.75, "shell", "the commands: a thin shell"),
    "api/": (5.2, 12.45, 4.5, 0.75, "shell", "import cl_complora: run, compare, load_run"),
    "compare/": (0.3, 11.25, 4.5, 0.8, "view", "many runs: sweeps, seeds, tests"),
    "finished/": (5.2, 11.25, 4.5, 0.8, "view", "export, predict, eval, explain"),
    "run/": (0.3, 9.8, 6.2, 1.0, "way", "the loop over tasks (trainer, learner, measuring, results)"),
    "report/": (6.8, 8.6, 2.9, 0.8, "view", "tables, TensorBoard, HTML"),
    "analysis/": (6.8, 7.6, 2.9, 0.8, "view", "geometry, drift, mistakes"),
    "engine/": (3.5, 6.9, 3.0, 1.1, "way", "attach, train, merge\n(the only room with Avalanche)"),
    "store/": (3.5, 5.7, 6.2, 0.8, "way", "the run folder: written whole, read without trust"),
    "clip/": (3.5, 4.7, 6.2, 0.8, "ground", "any open_clip model, its matrices, its text head"),
    "world/": (3.5, 3.7, 6.2, 0.8, "ground", "the embedded world: pictures and a small CLIP"),
    "data/": (0.3, 2.55, 2.9, 1.1, "way", "which images, which classes\n(sources, shots, pixels)"),
    "config/": (0.3, 1.3, 2.9, 0.85, "way", "YAML checked: file, line, key"),
    "subspace · lowrank · delta · muon · metrics": (
        3.5,
        1.55,
        6.2,
        0.95,
        "ground",
        "the method and its numbers, alone",
    ),
    "errors · files · progress · version": (0.3, 0.4, 9.4, 0.55, "ground", ""),
}
SHEETS = {
    "scenario.yaml\nstrategy.yaml": (-2.2, 1.33, 1.75, 0.8),
    "runs/…/results.json\ndeltas, records, answers": (10.15, 5.7, 2.5, 0.8),
}
# Points of the way of a task, one polyline a step.
WAY = [
    ("1", [(-0.43, 1.73), (0.28, 1.73)]),
    ("2", [(1.75, 2.17), (1.75, 2.53)]),
    ("3", [(0.6, 3.67), (0.6, 9.78)]),
    ("4", [(5.0, 9.78), (5.0, 8.02)]),
    ("5", [(5.0, 6.88), (5.0, 6.52)]),
    ("6", [(9.72, 6.1), (10.13, 6.1)]),
]
STEPS = [
    "1  both files are checked",
    "2  classes and shots are\n    chosen, images decoded",
    "3  the trainer takes one\n    task after another",
    "4  factors are attached,\n    trained and merged:\n    W ← W + ΔW",
    "5  update and record are\n    stored, every task\n    is measured",
    "6  this is left, and every\n    view reads it",
]


def box(axes, x, y, width, height, fill, dashed=False):
    style = "round,pad=0,rounding_size=0.1"
    patch = FancyBboxPatch((x, y), width, height, boxstyle=style, fc=fill, ec=INK, lw=1)
    patch.set_linestyle("--" if dashed else "-")
    axes.add_patch(patch)


figure = Figure(figsize=(12.2, 10.4))
axes = figure.add_axes((0, 0, 1, 1))
axes.set(xlim=(-2.4, 12.8), ylim=(0.2, 13.4))
axes.set_axis_off()
for name, (x, y, width, height, kind, text) in ROOMS.items():
    box(axes, x, y, width, height, FILLS[kind])
    middle = x + width / 2
    lines = text.count("\n") + 1 if text else 0
    top = y + height / 2 + 0.14 * lines
    axes.text(middle, top, name, ha="center", va="center", fontsize=11.5, weight="bold", color=INK)
    axes.text(middle, top - 0.2, text, ha="center", va="top", fontsize=8.8, color=QUIET, linespacing=1.2)
for name, (x, y, width, height) in SHEETS.items():
    box(axes, x, y, width, height, FILLS["file"], dashed=True)
    axes.text(x + width / 2, y + height / 2, name, ha="center", va="center", fontsize=9.6, color=INK)
for number, points in WAY:
    axes.plot(*zip(*points[:-1], strict=True), color=ROAD, lw=2.6, solid_capstyle="butt")
    look = {"arrowstyle": "-|>", "mutation_scale": 17, "color": ROAD, "lw": 2.6, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(points[-2], points[-1], **look))
    (x0, y0), (x1, y1) = points[0], points[1]
    axes.text(
        (x0 + x1) / 2 + (0.0 if y0 == y1 else 0.2),
        (y0 + y1) / 2 + (0.25 if y0 == y1 else 0.0),
        number,
        ha="center",
        va="center",
        fontsize=10.5,
        weight="bold",
        color=ROAD,
    )
axes.text(0.95, 9.5, "\n".join(STEPS), fontsize=9.4, va="top", linespacing=1.55, color=ROAD)
axes.add_patch(
    FancyArrowPatch((11.2, 13.05), (11.2, 7.35), arrowstyle="-|>", mutation_scale=17, color=QUIET, lw=1.6)
)
axes.text(11.4, 10.2, "a room imports\nonly rooms\nbelow it", fontsize=9.6, va="center", color=QUIET)
figure.savefig(OUT, metadata={"Date": None} if OUT.suffix == ".svg" else None)
