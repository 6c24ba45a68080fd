"""Objects as pretraining paints them: patches of colour, now and then with a texture, on any background."""

from __future__ import annotations

import numpy as np

from ..canvas import COLOURS, IMAGE_SIZE, Stroke, blend, colour, sprite
from ..generator import photograph
from ..patterns import PATTERNS, TEXTURES, pattern
from ..scenes import SCENES, scene

_COLOURS = tuple(COLOURS)
_MAIN, _SECOND, _DARK, _LIGHT = range(4)
# Least difference, summed over the channels, at which an object stands out from what is behind it.
_CONTRAST = 0.55
SIZE = (22, 46)
"""Bounds of an object's side, in pixels."""


def _any_colour(rng: np.random.Generator, *other_than: str | None) -> str:
    left = [name for name in _COLOURS if name not in other_than]
    return left[rng.integers(len(left))]


def _background(rng: np.random.Generator) -> tuple[np.ndarray, str | None]:
    """A plain wall, a gradient, clouds, a pattern or a scene, and the name of its colour if it has one."""
    kind = rng.random()
    if kind < 0.28:
        place = SCENES[rng.integers(len(SCENES))]
        return scene(place, rng).astype(np.float32) / 255, None
    name = _any_colour(rng)
    lightness = rng.uniform(0.2, 0.7) if name not in ("black", "white") else 0.0
    first = colour(rng, name) * (1 - lightness) + lightness
    if kind > 0.8:
        return np.tile(first, (IMAGE_SIZE, IMAGE_SIZE, 1)).astype(np.float32), name
    if kind > 0.55:
        second = np.clip(first + rng.normal(0, 0.15, 3), 0, 1)
        mix = pattern(("gradient", "clouds")[rng.integers(2)], rng)
    else:
        other = colour(rng, _any_colour(rng, name)) * (1 - lightness) + lightness
        second = first + (other - first) * rng.uniform(0.2, 0.55)
        mix = pattern(PATTERNS[rng.integers(len(PATTERNS))], rng)
    return (first + (second - first) * mix[..., None]).astype(np.float32), name


def _fill(rng: np.random.Generator, size: int, main: np.ndarray, avoid: tuple[str | None, ...]) -> np.ndarray:
    """What a texture in a second colour adds to the main colour of an object."""
    names = tuple(TEXTURES)
    second = colour(rng, _any_colour(rng, *avoid))
    return pattern(names[rng.integers(len(names))], rng, size)[..., None] * (second - main)


def paint_object(
    strokes: list[Stroke], rng: np.random.Generator, natural: tuple[str, str] | None = None
) -> np.ndarray:
    """Paints one object on a background.

    Args:
        strokes: The object in its own frame.
        rng: Source of randomness.
        natural: The colours the object usually has; it gets them in more than half of its pictures.

    Returns:
        Float RGB picture [48, 48, 3].
    """
    picture, behind = _background(rng)
    size = int(np.clip(rng.normal(36, 6), *SIZE))
    x, y = (int(v) for v in rng.integers(-2, IMAGE_SIZE - size + 3, 2))
    around = picture[max(y, 0) : y + size, max(x, 0) : x + size].mean((0, 1))

    usual = natural is not None and rng.random() < 0.55
    main_name = natural[0] if usual else _any_colour(rng, behind)
    main = colour(rng, main_name)
    while np.abs(main - around).sum() < _CONTRAST:
        main_name = _any_colour(rng, behind, main_name)
        main = colour(rng, main_name)
    second_name = natural[1] if usual else _any_colour(rng, behind, main_name)
    palette = np.empty((4, 3), np.float32)
    palette[_MAIN] = main
    palette[_SECOND] = colour(rng, second_name)
    palette[_DARK] = rng.uniform(0.02, 0.2) * (0.4 if around.sum() < 0.6 else 1)
    palette[_LIGHT] = rng.uniform(0.8, 1.0)

    texture = _fill(rng, size, main, (behind, main_name)) if rng.random() < 0.1 else None
    blend(picture, sprite(strokes, rng, size), palette, x, y, texture)
    return photograph(rng, picture)
