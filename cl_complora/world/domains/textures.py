"""Six materials, close up and each light or dark, that the general pictures never name.

Each is a map from the plane to a tone in [0, 1], drawn at twice the final resolution, and a palette
that gives tones their colours. The palette is the material's own in half of the pictures and any two colours
in the others, so that structure and shade, not colour, tell the classes apart. Twelve classes share eight
words.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..canvas import fbm, value_noise
from .backdrops import shrink
from .domain import drawn_domain

_SIZE = 96
_PIXEL = 0.5  # One step on the drawing grid, in pixels of the final picture.

Tones = np.ndarray


def _plane(rng: np.random.Generator, max_turn: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in final pixels, turned by at most ``max_turn`` radians and shifted at random."""
    rows, columns = np.mgrid[0:_SIZE, 0:_SIZE].astype(np.float32) * _PIXEL
    turn = rng.uniform(-max_turn, max_turn)
    x, y = columns - 24 + rng.uniform(-12, 12), rows - 24 + rng.uniform(-12, 12)
    return x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)


def _edge(distance: np.ndarray, softness: float = 0.8) -> np.ndarray:
    """1 where the distance is positive, 0 where negative, with a soft step between."""
    return np.clip(distance / softness + 0.5, 0, 1)


def _tone_of_cell(i: np.ndarray, j: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random tone for every cell of an integer grid."""
    tones = rng.random((64, 64)).astype(np.float32)
    return tones[i.astype(int) % 64, j.astype(int) % 64]


def _nearest_two(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance to the nearest and second nearest of random points, and which is nearest."""
    points = rng.uniform(-8, 56, (count, 2)).astype(np.float32)
    axis = np.arange(_SIZE, dtype=np.float32) * _PIXEL
    squared = (axis[None, :] - points[:, :1]) ** 2
    squared = squared[:, None, :] + ((axis[None, :] - points[:, 1:]) ** 2)[:, :, None]
    nearest = squared.argmin(0)
    first = np.take_along_axis(squared, nearest[None], 0)[0]
    np.put_along_axis(squared, nearest[None], np.inf, 0)
    return np.sqrt(first), np.sqrt(squared.min(0)), nearest


def _bricks(rng: np.random.Generator) -> Tones:
    u, v = _plane(rng, 0.15)
    height = rng.uniform(5, 9)
    width = height * rng.uniform(1.9, 2.5)
    row = np.floor(v / height)
    shifted = u + row % 2 * width / 2
    column = np.floor(shifted / width)
    gap = np.minimum(
        width / 2 - np.abs(shifted - (column + 0.5) * width), height / 2 - np.abs(v - (row + 0.5) * height)
    )
    brick = 0.55 + 0.45 * _tone_of_cell(column, row, rng) + 0.12 * (fbm(rng, _SIZE, 6) - 0.5)
    return _edge(gap - rng.uniform(0.5, 0.9)) * brick


def _honeycomb(rng: np.random.Generator) -> Tones:
    u, v = _plane(rng, np.pi)
    pitch = rng.uniform(8, 13)
    period_x, period_y = pitch, pitch * np.sqrt(3)
    # A hexagonal grid is two rectangular ones; the distance to a cell's wall is measured along three axes.
    wall = np.full(u.shape, -np.inf, np.float32)
    for shift in (0.0, 0.5):
        x = (u + (shift + 0.5) * period_x) % period_x - period_x / 2
        y = (v + (shift + 0.5) * period_y) % period_y - period_y / 2
        ax, ay = np.abs(x), np.abs(y)
        wall = np.maximum(wall, pitch / 2 - np.maximum(ax, ax / 2 + ay * np.sqrt(3) / 2))
    cell = _edge(wall - rng.uniform(0.5, 1.0))
    return cell * np.clip(0.55 + wall / pitch, 0, 1)


def _wood(rng: np.random.Generator) -> Tones:
    along, across = _plane(rng, 0.2)
    if rng.random() < 0.5:
        along, across = across, along
    # Growth rings of a trunk sawn lengthwise: they wander slowly and part round a knot.
    knot_along, knot_across = rng.uniform(-20, 20, 2)
    reach = rng.uniform(3, 7)
    bulge = np.exp(-(((along - knot_along) / (2.5 * reach)) ** 2) - ((across - knot_across) / reach) ** 2)
    ring = across + np.tanh((across - knot_across) / 2) * bulge * reach
    ring = ring + 7 * value_noise(rng, _SIZE, 48) + 0.9 * value_noise(rng, _SIZE, 14)
    phase = ring / rng.uniform(3.5, 7) % 1
    late = phase**3 + np.clip(1 - phase * 9, 0, 1)
    fibre = rng.random(512).astype(np.float32)[(ring * 5).astype(int) % 512]
    return np.clip(0.95 - 0.55 * late - 0.25 * fibre - 0.45 * bulge**4, 0, 1)


def _scales(rng: np.random.Generator) -> Tones:
    u, v = _plane(rng, 0.25)
    pitch = rng.uniform(9, 14)
    step = pitch * 0.5
    row = np.floor(v / step)
    tone = np.zeros_like(u)
    # Scales of the rows above lie over those below, like the tiles of a roof.
    for up in (-1, 0, 1):
        r = row - up
        column = np.floor((u + r % 2 * pitch / 2) / pitch)
        du = u + r % 2 * pitch / 2 - (column + 0.5) * pitch
        dv = v - r * step
        radius = np.hypot(du, dv) / (pitch * 0.56)
        scale = (1 - radius**3) * (0.8 + 0.2 * _tone_of_cell(column, r, rng))
        tone = np.where((radius < 1) & (dv >= 0), scale, tone)
    return tone


def _woven(rng: np.random.Generator) -> Tones:
    u, v = _plane(rng, np.pi / 4)
    pitch = rng.uniform(7, 11)
    i, j = np.floor(u / pitch), np.floor(v / pitch)
    s, t = u / pitch - i - 0.5, v / pitch - j - 0.5
    # A basket: in each square of a chessboard a band of reeds comes up over the band that crosses it.
    lying = (i + j) % 2 > 0
    across, along = np.where(lying, t, s), np.where(lying, s, t)
    reed = np.abs((across + 0.5) * 3 % 1 - 0.5)
    arch = np.clip(1.15 - (2 * along) ** 2 * 0.75, 0, 1)
    return (0.15 + 0.85 * _edge(0.38 - reed, 0.25) * arch) * np.where(lying, 1.0, 0.75)


def _cracked(rng: np.random.Generator) -> Tones:
    near, next_near, cell = _nearest_two(rng, int(rng.integers(22, 40)))
    wobble = 1.6 * (fbm(rng, _SIZE, 8, 2) - 0.5)
    plate = 0.65 + 0.25 * rng.random(64).astype(np.float32)[cell] + 0.25 * (fbm(rng, _SIZE, 10) - 0.5)
    return _edge(next_near - near + wobble - rng.uniform(0.7, 1.5), 1.4) * plate


# How to draw each material, and its own colours from tone 0 to tone 1.
TEXTURES: dict[str, tuple[Callable[[np.random.Generator], Tones], tuple[tuple[float, float, float], ...]]] = {
    "brick": (_bricks, ((0.78, 0.75, 0.7), (0.5, 0.2, 0.15), (0.75, 0.38, 0.28))),
    "honeycomb": (_honeycomb, ((0.45, 0.26, 0.05), (0.9, 0.62, 0.1), (1.0, 0.85, 0.4))),
    "wood": (_wood, ((0.28, 0.16, 0.08), (0.6, 0.4, 0.22), (0.85, 0.66, 0.42))),
    "scale": (_scales, ((0.04, 0.15, 0.12), (0.15, 0.5, 0.4), (0.6, 0.85, 0.6))),
    "woven": (_woven, ((0.2, 0.13, 0.07), (0.62, 0.46, 0.26), (0.9, 0.78, 0.55))),
    "cracked": (_cracked, ((0.15, 0.1, 0.07), (0.6, 0.47, 0.34), (0.82, 0.7, 0.55))),
}
_SHADES = ("light", "dark")
DEPTH = (0.45, 0.6)
"""Range of the factor that takes a material towards white or black."""
_CLASSES = tuple((shade, name) for name in TEXTURES for shade in _SHADES)


def _two_colours(rng: np.random.Generator) -> np.ndarray:
    """Any two colours that can be told apart in grey as well."""
    dark, light = rng.random((2, 3))
    return np.stack([dark * 0.5, 1 - light * 0.45])[:: rng.choice((-1, 1))]


def surface(
    class_index: int, rng: np.random.Generator, own_colours: float, depth: tuple[float, float]
) -> np.ndarray:
    """A material in its light or its dark form.

    Args:
        class_index: Which material and shade.
        rng: Source of randomness.
        own_colours: How often the material has its own palette; else any two colours.
        depth: Range of the factor that takes the picture towards white or black.

    Returns:
        Float RGB picture [96, 96, 3], twice the final resolution.
    """
    shade, name = _CLASSES[class_index]
    draw, own_palette = TEXTURES[name]
    tones = draw(rng)
    palette = np.array(own_palette) if rng.random() < own_colours else _two_colours(rng)
    palette = np.clip(palette + rng.normal(0, 0.05, (1, 3)) + rng.normal(0, 0.03, palette.shape), 0, 1)
    palette = palette * rng.uniform(*depth) + (1 - rng.uniform(*depth) if shade == "light" else 0)
    stops = np.linspace(0, 1, len(palette))
    return np.clip(np.stack([np.interp(tones, stops, palette[:, c]) for c in range(3)], -1), 0, 1)


def _paint(class_index: int, rng: np.random.Generator, split: str) -> np.ndarray:
    picture = surface(class_index, rng, 0.5, DEPTH)
    light = 1 + rng.uniform(0, 0.25) * (fbm(rng, _SIZE, 60, 1) - 0.5)[..., None]
    return shrink(picture * light) * rng.uniform(0.88, 1.05) + rng.normal(
        0, rng.uniform(0.01, 0.035), (48, 48, 1)
    )


DOMAIN = drawn_domain(
    "textures",
    "Textures",
    tuple(f"a {shade} {name} pattern" for shade, name in _CLASSES),
    ("a photo of {}", "a close-up of {}", "an image of {}", "a picture of {}"),
    _paint,
)
