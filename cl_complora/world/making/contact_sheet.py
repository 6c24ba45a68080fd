"""Pictures of the world for people.

python -m cl_complora.world.making.contact_sheet general|pretraining|loose|<domain> -o FILE
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ...errors import UserError
from ..source import GENERAL, domain_names


def labelled_pictures(name: str) -> tuple[list[np.ndarray], list[str], int]:
    """(pictures, labels, columns) of the sheet of the general set, the pretraining, or a domain.

    Raises:
        UserError: for an unknown name.
    """
    if name == "pretraining":
        from ..generator import block

        pixels, captions, _ = block(0, 0, 48)
        return list(pixels), captions, 8
    if name == "loose":
        from .batches import Plan, loose_block

        drawn = loose_block(Plan(seed=0, images=0), 0, 112)
        order = drawn.labels.argsort(kind="stable")
        return [drawn.pixels[i] for i in order], [drawn.captions[i] for i in order], 16
    if name == GENERAL:
        from ..general import GENERAL_CLASSES, render_general

        return [render_general(c, 0) for c in range(len(GENERAL_CLASSES))], list(GENERAL_CLASSES), 14
    from ..domains import DOMAINS

    if name not in DOMAINS:
        raise UserError(f"no sheet named {name!r}; there are pretraining, loose, {', '.join(domain_names())}")
    domain = DOMAINS[name]
    pairs = [(c, i) for c in range(len(domain.class_names)) for i in range(4)]
    return [domain.render(c, i, "train") for c, i in pairs], [domain.class_names[c] for c, i in pairs], 16


def sheet(name: str, file: Path) -> None:
    """Draw a contact sheet into a PNG file."""
    pictures, labels, columns = labelled_pictures(name)
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(columns * 0.95, rows * 1.3), dpi=80)
    FigureCanvasAgg(figure)
    for place, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(picture, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title("\n".join(textwrap.wrap(label, 17)[:3]), fontsize=5.5, pad=2)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.965, wspace=0.08, hspace=0.42)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    with Image.open(file) as drawn:  # a palette makes the file four times smaller
        reduced = drawn.convert("RGB").quantize(200, dither=Image.Dither.NONE)
    reduced.save(file, optimize=True)


def main(
    name: Annotated[str, typer.Argument(help="general, pretraining, loose, or a domain.")],
    output: Annotated[Path, typer.Option("-o", help="PNG file.")],
) -> None:
    """Draw a contact sheet."""
    sheet(name, output)


if __name__ == "__main__":
    typer.run(main)
