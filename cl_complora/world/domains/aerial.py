"""Ten kinds of land and water as a satellite sees them.

All are drawn on the same sort of ground, in the same light and with north anywhere, so that what stands on
the ground, not its colour, makes the class.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..canvas import fbm
from .backdrops import shrink
from .domain import drawn_domain
from .land import LAND_SIZE, Land

_WATER = np.array([0.13, 0.28, 0.40])
_SAND = np.array([0.80, 0.73, 0.56])
_ASPHALT = np.array([0.40, 0.40, 0.42])
_ROOFS = ((0.66, 0.31, 0.22), (0.58, 0.36, 0.30), (0.52, 0.47, 0.43), (0.74, 0.68, 0.62), (0.38, 0.38, 0.42))
_CROPS = ((0.50, 0.60, 0.25), (0.66, 0.57, 0.31), (0.33, 0.50, 0.20), (0.78, 0.70, 0.40), (0.48, 0.37, 0.25))


def _crop_fields(land: Land) -> None:
    rng = land.rng
    image, draw = land.pencil()
    y = -75.0
    while y < 75:
        height = rng.uniform(16, 30)
        x = -75.0 - rng.uniform(0, 20)
        while x < 75:
            width = rng.uniform(14, 40)
            box = [(x, y), (x + width - 1.2, y), (x + width - 1.2, y + height - 1.2), (x, y + height - 1.2)]
            crop = np.array(_CROPS[rng.integers(len(_CROPS))]) + rng.normal(0, 0.03, 3)
            draw.polygon(land.at(box), fill=land.colour(crop, 0.01))
            furrow = land.colour(crop * 0.87, 0.01)
            for step in np.arange(2, height - 2, 3.2) if rng.random() < 0.6 else ():
                draw.line(land.at([(x + 1, y + step), (x + width - 2, y + step)]), fill=furrow)
            x += width
        y += height
    land.keep(image)


def _forest(land: Land) -> None:
    land.fill(np.ones((LAND_SIZE, LAND_SIZE)), np.array([0.12, 0.22, 0.10]), 0.85)
    image, draw = land.pencil()
    land.trees(draw, 180, 2.5, 6)
    land.keep(image)


def _highway(land: Land) -> None:
    rng = land.rng
    for _ in range(1 if rng.random() < 0.6 else 2):
        distance = land.winding(rng.uniform(0, 9))
        half = rng.uniform(6.5, 9)
        land.fill(half + 2.5 - distance, np.array([0.52, 0.54, 0.40]), 0.6)
        land.fill(half - distance, _ASPHALT + 0.06)
        land.fill(1.0 - distance, np.array([0.45, 0.52, 0.32]))
        land.fill(0.9 - np.abs(distance - half * 0.55), np.array([0.85, 0.85, 0.82]), 0.5)
        rows, columns = np.nonzero(np.abs(distance - half * 0.55) < 1)
        image, draw = land.pencil()
        for i in rng.integers(0, len(rows), int(rng.integers(4, 12))):
            x, y = columns[i], rows[i]
            car = land.colour(((0.9, 0.9, 0.9), (0.7, 0.1, 0.1), (0.1, 0.1, 0.15), (0.2, 0.3, 0.7))[i % 4])
            draw.rectangle((x - 1, y - 1, x + 1, y + 1), fill=car)
        land.keep(image)
        land.axes = land.axes[::-1] * np.array([[1], [-1]])
    image, draw = land.pencil()
    land.trees(draw, int(rng.integers(0, 14)))
    land.keep(image)


def _river(land: Land) -> None:
    rng = land.rng
    distance = land.winding(rng.uniform(10, 22)) + 5 * (fbm(rng, LAND_SIZE, 24, 2) - 0.5)
    half = rng.uniform(5, 11)
    land.fill(half + rng.uniform(1, 4) - distance, _SAND - 0.15, 0.7)
    image, draw = land.pencil()
    land.trees(draw, int(rng.integers(10, 50)))
    land.keep(image)
    land.fill((half - distance) / 2, _WATER + rng.choice((0.0, 0.06)) * np.array([0.6, 0.8, 0.2]))


def _residential_area(land: Land) -> None:
    rng = land.rng
    image, draw = land.pencil()
    depth, plot = rng.uniform(24, 30), rng.uniform(9, 12)
    street = land.colour(_ASPHALT + 0.15)
    cross_every = int(rng.integers(4, 7))
    shift = rng.uniform(0, plot)
    land.trees(draw, 60)
    for row in range(-4, 5):
        draw.line(land.at([(-80, row * depth), (80, row * depth)]), fill=street, width=4)
        for column in range(-8, 9):
            x = column * plot + shift
            if (column + row) % cross_every == 0:
                draw.line(land.at([(x, row * depth), (x, (row + 1) * depth)]), fill=street, width=3)
                continue
            for side in (0.28, 0.72):
                px, py = land.at([(x, (row + side) * depth)])[0]
                if rng.random() < 0.9 and -8 < px < LAND_SIZE + 8 and -8 < py < LAND_SIZE + 8:
                    roof = land.colour(_ROOFS[rng.integers(len(_ROOFS))])
                    size = plot * rng.uniform(0.45, 0.68), plot * rng.uniform(0.45, 0.65)
                    land.block(draw, x, (row + side) * depth + rng.uniform(-1, 1), *size, roof)
    land.keep(image)


def _industrial_area(land: Land) -> None:
    rng = land.rng
    land.fill(np.ones((LAND_SIZE, LAND_SIZE)), np.array([0.52, 0.51, 0.48]), 0.85)
    image, draw = land.pencil()
    halls = ((0.82, 0.83, 0.85), (0.68, 0.71, 0.75), (0.36, 0.42, 0.53), (0.72, 0.62, 0.56))
    y = -66.0
    while y < 66:
        depth = rng.uniform(20, 34)
        x = -66.0 - rng.uniform(0, 24)
        while x < 66:
            width = rng.uniform(20, 46)
            centre = x + width / 2, y + depth / 2
            kind = rng.random()
            if kind < 0.7:
                roof = land.colour(halls[rng.integers(4)])
                land.block(draw, *centre, width - 5, depth - 6, roof)
                for step in np.arange(6, width - 8, 6):
                    bay = land.at([(x + step, y + 4), (x + step, y + depth - 4)])
                    draw.line(bay, fill=tuple(int(c * 0.93) for c in roof))
            elif kind < 0.85:
                for dx in np.arange(6, width - 4, 9):
                    px, py = land.at([(x + dx, centre[1])])[0]
                    draw.ellipse((px - 3, py - 3, px + 5, py + 5), fill=(50, 50, 48))
                    draw.ellipse((px - 4, py - 4, px + 3.5, py + 3.5), fill=land.colour((0.86, 0.86, 0.84)))
            else:
                for dx in np.arange(4, width - 4, 3.4):
                    lorry = land.at([(x + dx, y + 7), (x + dx, y + depth - 8)])
                    draw.line(lorry, fill=land.colour((0.75, 0.72, 0.7), 0.12), width=2)
            x += width
        y += depth
        draw.line(land.at([(-80, y - 1), (80, y - 1)]), fill=land.colour(_ASPHALT), width=3)
    land.keep(image)


def _lake(land: Land) -> None:
    rng = land.rng
    x, y = land.plane()
    x, y = x - rng.uniform(-10, 10), y - rng.uniform(-10, 10)
    angle = np.arctan2(y, x)
    radius = rng.uniform(22, 36) * (1 + 0.22 * np.sin(2 * angle + rng.uniform(0, 6.3)))
    radius += 4 * np.sin(3 * angle + rng.uniform(0, 6.3)) + 2 * np.sin(5 * angle + rng.uniform(0, 6.3))
    inside = radius - np.hypot(x, y) + 8 * (fbm(rng, LAND_SIZE, 20, 3) - 0.5)
    image, draw = land.pencil()
    land.trees(draw, int(rng.integers(10, 90)))
    land.keep(image)
    land.fill((inside + rng.uniform(1, 4)) / 2, _SAND - 0.2, 0.6)
    land.fill(inside / 2, _WATER)
    land.fill((inside - 10) / 16, _WATER * 0.8, 0.7)


def _orchard(land: Land) -> None:
    rng = land.rng
    image, draw = land.pencil()
    row, spacing = rng.uniform(9, 14), rng.uniform(8, 11)
    radius = min(row, spacing) * rng.uniform(0.28, 0.38)
    shift = rng.uniform(0, spacing, 2)
    count = int(70 / min(row, spacing)) + 1
    for i in range(-count, count + 1):
        for j in range(-count, count + 1):
            x, y = land.at([(i * spacing + shift[0], j * row + shift[1])])[0]
            if -6 < x < LAND_SIZE + 6 and -6 < y < LAND_SIZE + 6 and rng.random() < 0.97:
                land.tree(draw, x, y, radius * rng.uniform(0.85, 1.15))
    land.keep(image)


def _airport(land: Land) -> None:
    rng = land.rng
    image, draw = land.pencil()
    white = (235, 235, 230)
    offset = rng.uniform(-24, -8)
    half = rng.uniform(6, 8)
    runway, taxiway = land.colour(_ASPHALT - 0.06), land.colour(_ASPHALT + 0.08)
    apron = offset + half + rng.uniform(12, 16)
    for x in (rng.uniform(-30, -10), rng.uniform(10, 30)):
        draw.line(land.at([(x, offset), (x + 4, apron)]), fill=taxiway, width=5)
    for near, far, surface in ((offset - half, offset + half, runway), (apron, apron + 22, taxiway)):
        draw.polygon(land.at([(-80, near), (80, near), (80, far), (-80, far)]), fill=surface)
    threshold = rng.uniform(-40, 10)
    for y in np.arange(-half + 2, half - 1, 2.6):
        draw.line(land.at([(threshold, offset + y), (threshold + 8, offset + y)]), fill=white)
    for x in np.arange(-80, 80, 11):
        if not -6 < x - threshold < 16:
            draw.line(land.at([(x, offset), (x + 6, offset)]), fill=white, width=2)
    land.block(
        draw, rng.uniform(-20, 20), apron + 25, rng.uniform(40, 70), 12, land.colour((0.75, 0.76, 0.8))
    )
    for x in np.arange(-60 + rng.uniform(0, 12), 60, rng.uniform(17, 24)):
        nose = apron + rng.uniform(4, 6)
        draw.line(land.at([(x, nose), (x, nose + 13)]), fill=white, width=3)
        draw.line(land.at([(x - 7, nose + 8), (x, nose + 4), (x + 7, nose + 8)]), fill=white, width=2)
        draw.line(land.at([(x - 3, nose + 13), (x + 3, nose + 13)]), fill=white, width=2)
    land.keep(image)


def _coast(land: Land) -> None:
    rng = land.rng
    _, across = land.plane()
    shore = across + 22 * (fbm(rng, LAND_SIZE, 46, 3) - 0.5) + rng.uniform(-14, 14)
    image, draw = land.pencil()
    land.trees(draw, int(rng.integers(0, 60)))
    land.keep(image)
    beach = rng.uniform(4, 11)
    land.fill((shore + beach) / 2, _SAND)
    land.fill(shore / 3, _WATER + np.array([0.05, 0.16, 0.14]))
    land.fill((shore - 8) / 18, _WATER)
    for distance in (1.5, rng.uniform(5, 8)):
        land.fill(0.9 - np.abs(shore - distance), np.array([0.9, 0.93, 0.93]), 0.65)


_VIEWS: dict[str, Callable[[Land], None]] = {
    "crop fields": _crop_fields,
    "a forest": _forest,
    "a highway": _highway,
    "a river": _river,
    "a residential area": _residential_area,
    "an industrial area": _industrial_area,
    "a lake": _lake,
    "an orchard": _orchard,
    "an airport": _airport,
    "a coast": _coast,
}
_NAMES = tuple(_VIEWS)


def _paint(class_index: int, rng: np.random.Generator, split: str) -> np.ndarray:
    land = Land(rng)
    _VIEWS[_NAMES[class_index]](land)
    picture = shrink(land.pixels)
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
