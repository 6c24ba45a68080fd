"""Views from above: five kinds of land, each in two forms that one adjective tells apart.

All are drawn on the same sort of ground, in the same light and with north anywhere, so that what stands on
the ground, not its colour, makes the class. Nouns and adjectives are shared between classes (a dense
forest, a sparse forest, a dense orchard), as they are in the land-use classes of real satellite data.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ..canvas import fbm
from .backdrops import shrink
from .domain import drawn_domain
from .land import LAND_SIZE, Land

_WATER = np.array([0.13, 0.28, 0.40])
_SAND = np.array([0.80, 0.73, 0.56])
_ASPHALT = np.array([0.40, 0.40, 0.42])
_ROOFS = ((0.66, 0.31, 0.22), (0.58, 0.36, 0.30), (0.52, 0.47, 0.43), (0.74, 0.68, 0.62), (0.38, 0.38, 0.42))


def _forest(land: Land, dense: bool) -> None:
    if dense:
        land.fill(np.ones((LAND_SIZE, LAND_SIZE)), np.array([0.12, 0.22, 0.10]), 0.85)
    image, draw = land.pencil()
    land.trees(draw, int(land.rng.integers(160, 200) if dense else land.rng.integers(26, 46)), 2.5, 6)
    land.keep(image)


def _orchard(land: Land, dense: bool) -> None:
    rng = land.rng
    image, draw = land.pencil()
    row, spacing = rng.uniform((7, 6.5), (9.5, 8.5)) if dense else rng.uniform((15, 13), (20, 17))
    radius = min(row, spacing) * rng.uniform(0.34, 0.42) if dense else rng.uniform(2.2, 3.6)
    shift = rng.uniform(0, spacing, 2)
    count = int(70 / min(row, spacing)) + 1
    for i in range(-count, count + 1):
        for j in range(-count, count + 1):
            x, y = land.at([(i * spacing + shift[0], j * row + shift[1])])[0]
            if -6 < x < LAND_SIZE + 6 and -6 < y < LAND_SIZE + 6 and rng.random() < 0.97:
                land.tree(draw, x, y, radius * rng.uniform(0.85, 1.15))
    land.keep(image)


def _river(land: Land, wide: bool) -> None:
    rng = land.rng
    distance = land.winding(rng.uniform(10, 22)) + 5 * (fbm(rng, LAND_SIZE, 24, 2) - 0.5)
    half = rng.uniform(11, 17) if wide else rng.uniform(2.5, 5)
    land.fill(half + rng.uniform(1, 4) - distance, _SAND - 0.15, 0.7)
    image, draw = land.pencil()
    land.trees(draw, int(rng.integers(10, 50)))
    land.keep(image)
    land.fill((half - distance) / 2, _WATER + rng.choice((0.0, 0.06)) * np.array([0.6, 0.8, 0.2]))


def _road(land: Land, wide: bool) -> None:
    rng = land.rng
    distance = land.winding(rng.uniform(0, 9))
    half = rng.uniform(8.5, 12) if wide else rng.uniform(2.2, 3.6)
    land.fill(half + 2.5 - distance, np.array([0.52, 0.54, 0.40]), 0.6)
    land.fill(half - distance, _ASPHALT + 0.06)
    middle = 0.0
    if wide:  # two carriageways with a strip of grass between them
        land.fill(1.0 - distance, np.array([0.45, 0.52, 0.32]))
        middle = half * 0.55
        land.fill(0.9 - np.abs(distance - middle), np.array([0.85, 0.85, 0.82]), 0.5)
    rows, columns = np.nonzero(np.abs(distance - middle) < 1)
    image, draw = land.pencil()
    for i in rng.integers(0, len(rows), int(rng.integers(4, 12)) if wide else int(rng.integers(0, 4))):
        x, y = columns[i], rows[i]
        car = land.colour(((0.9, 0.9, 0.9), (0.7, 0.1, 0.1), (0.1, 0.1, 0.15), (0.2, 0.3, 0.7))[i % 4])
        draw.rectangle((x - 1, y - 1, x + 1, y + 1), fill=car)
    land.trees(draw, int(rng.integers(0, 14)))
    land.keep(image)


def _housing(land: Land, dense: bool) -> None:
    rng = land.rng
    image, draw = land.pencil()
    depth, plot = rng.uniform(24, 30), rng.uniform(9, 12)
    street = land.colour(_ASPHALT + 0.15)
    cross_every = int(rng.integers(4, 7))
    shift, built = rng.uniform(0, plot), 0.95 if dense else 0.28
    land.trees(draw, 50 if dense else 110)
    for row in range(-4, 5):
        draw.line(land.at([(-80, row * depth), (80, row * depth)]), fill=street, width=4)
        for column in range(-8, 9):
            x = column * plot + shift
            if (column + row) % cross_every == 0:
                draw.line(land.at([(x, row * depth), (x, (row + 1) * depth)]), fill=street, width=3)
                continue
            for side in (0.28, 0.72):
                px, py = land.at([(x, (row + side) * depth)])[0]
                if rng.random() < built and -8 < px < LAND_SIZE + 8 and -8 < py < LAND_SIZE + 8:
                    roof = land.colour(_ROOFS[rng.integers(len(_ROOFS))])
                    size = plot * rng.uniform(0.45, 0.68), plot * rng.uniform(0.45, 0.65)
                    land.block(draw, x, (row + side) * depth + rng.uniform(-1, 1), *size, roof)
    land.keep(image)


_VIEWS: dict[str, Callable[[Land], None]] = {
    "a dense forest": partial(_forest, dense=True),
    "a sparse forest": partial(_forest, dense=False),
    "a dense orchard": partial(_orchard, dense=True),
    "a sparse orchard": partial(_orchard, dense=False),
    "dense housing": partial(_housing, dense=True),
    "sparse housing": partial(_housing, dense=False),
    "a wide river": partial(_river, wide=True),
    "a narrow river": partial(_river, wide=False),
    "a wide road": partial(_road, wide=True),
    "a narrow road": partial(_road, wide=False),
}
_NAMES = tuple(_VIEWS)


def view(class_index: int, rng: np.random.Generator) -> np.ndarray:
    """The land of a class in clear air: float RGB [48, 48, 3]."""
    land = Land(rng)
    _VIEWS[_NAMES[class_index]](land)
    return shrink(land.pixels)


def _paint(class_index: int, rng: np.random.Generator, split: str) -> np.ndarray:
    picture = view(class_index, rng)
    haze = rng.uniform(0, 0.25)
    sky = np.array([0.75, 0.8, 0.88])
    picture = picture * rng.uniform(0.85, 1.2) * (1 - haze) + sky * haze * 0.8
    return picture + rng.normal(0, rng.uniform(0.01, 0.035), (48, 48, 1))


DOMAIN = drawn_domain(
    "aerial",
    "Aerial views",
    _NAMES,
    ("an aerial photo of {}", "a satellite photo of {}", "{} from above", "a photo of {} seen from above"),
    _paint,
)
