"""The pretraining's curve as a picture: python -m cl_complora.world.making.plot_curve -o
docs/img/pretraining.svg"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from .. import ASSETS
from .loose_captions import FAMILIES


def plot(curve: Path, output: Path) -> None:
    """Zero-shot accuracy on the general set and on the stream's families against pictures seen."""
    rows = [json.loads(line) for line in curve.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(6.4, 3.6))
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    images = [row["images"] / 1000 for row in rows]
    labels = (
        ("things", "118 objects, shapes, patterns, scenes"),
        ("all", "all 154 classes"),
        ("glyphs", "36 letters and digits"),
    )
    for (key, label), colour in zip(labels, ("#0072b2", "#000000", "#d55e00"), strict=True):
        axes.plot(
            images,
            [100 * row[key] for row in rows],
            label=label,
            color=colour,
            linewidth=2 if key == "all" else 1.3,
        )
    stream = [100 * float(np.mean([row[family] for family in FAMILIES])) for row in rows]
    axes.plot(
        images, stream, label="the stream's seven families (mean)", color="#009e73", linewidth=1.3, ls="--"
    )
    axes.set(xlabel="pictures seen (thousands)", ylabel="zero-shot top-1 (%)", ylim=(0, 100), xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, metadata={"Date": None})


def main(
    output: Annotated[Path, typer.Option("-o", help="SVG file.")],
    curve: Annotated[Path, typer.Option(help="curve.jsonl of a pretraining.")] = ASSETS / "curve.jsonl",
) -> None:
    """Draw the curve."""
    plot(curve, output)


if __name__ == "__main__":
    typer.run(main)
