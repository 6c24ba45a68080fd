"""Chalk on a board."""

from __future__ import annotations

import numpy as np

from ..canvas import IMAGE_SIZE, Stroke, fbm
from .line_art import contours, pose

_BOARDS = ((0.11, 0.22, 0.17), (0.09, 0.09, 0.11), (0.12, 0.18, 0.27), (0.19, 0.14, 0.11))
_STICKS = ((0.95, 0.95, 0.92), (0.95, 0.95, 0.92), (0.95, 0.88, 0.6), (0.95, 0.72, 0.72), (0.7, 0.87, 0.95))


def draw_chalk(primitives: list[Stroke], rng: np.random.Generator) -> np.ndarray:
    """Draws an object's outline in chalk.

    Args:
        primitives: The object in its own frame.
        rng: Source of randomness.

    Returns:
        Float RGB picture [48, 48, 3].
    """
    board = np.array(_BOARDS[rng.integers(len(_BOARDS))]) + rng.normal(0, 0.02, 3)
    # Dust that the sponge left behind.
    dust = fbm(rng, IMAGE_SIZE, 16)[..., None]
    picture = board + dust * rng.uniform(0.04, 0.14) + rng.normal(0, 0.015, (IMAGE_SIZE, IMAGE_SIZE, 1))
    posed = pose(primitives, rng)
    line = contours(posed, rng.uniform(0.7, 1.4)).sum(-1)
    if rng.random() < 0.35:  # Gone over a second time, not quite in the same place.
        again = [(kind, part, width, points + rng.normal(0, 0.5, 2)) for kind, part, width, points in posed]
        line = np.maximum(line, 0.8 * contours(again, 0.7).sum(-1))
    grain = rng.uniform(0.45, 1, (IMAGE_SIZE, IMAGE_SIZE))
    stick = np.array(_STICKS[rng.integers(len(_STICKS))]) + rng.normal(0, 0.03, 3)
    return picture + (stick - picture) * (np.clip(line, 0, 1) * grain)[..., None]
