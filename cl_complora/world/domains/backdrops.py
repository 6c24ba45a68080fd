"""Blurred surroundings for subjects, drawn at twice the final resolution, and the way back down."""

from __future__ import annotations

import numpy as np

from ..canvas import fbm


def shrink(picture: np.ndarray) -> np.ndarray:
    """Halves a drawing in both directions, which smooths its edges.

    Args:
        picture: Float array [2n, 2n, channels].

    Returns:
        Float array [n, n, channels].
    """
    return (picture[::2, ::2] + picture[1::2, ::2] + picture[::2, 1::2] + picture[1::2, 1::2]) / 4


def soft_backdrop(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws a wall, a sky or a sky over a field, all out of focus.

    Args:
        rng: Source of randomness.
        size: Side of the square drawing.

    Returns:
        Float RGB array [size, size, 3].
    """
    kind = rng.integers(3)
    if kind == 0:
        base = rng.uniform(0.15, 0.85, 3)
        other = np.clip(base + rng.normal(0, 0.15, 3), 0, 1)
        mix = fbm(rng, size, size / 3)[..., None]
        return base + (other - base) * mix
    rows = np.linspace(0, 1, size)[:, None, None]
    top = np.array([0.3, 0.52, 0.85]) + rng.normal(0, 0.06, 3)
    bottom = np.array([0.75, 0.86, 0.95]) + rng.normal(0, 0.04, 3)
    sky = top + (bottom - top) * rows
    cloud = np.clip(fbm(rng, size, size / 2.5) * 2 - rng.uniform(0.7, 1.4), 0, 1)[..., None]
    picture = sky + (np.array([0.97, 0.97, 0.98]) - sky) * cloud * 0.8
    if kind == 2:
        horizon = rng.uniform(0.45, 0.8)
        ground = np.array(((0.3, 0.5, 0.2), (0.6, 0.52, 0.36), (0.45, 0.45, 0.47))[rng.integers(3)])
        ground = ground + rng.normal(0, 0.05, 3) + 0.15 * (fbm(rng, size, size / 6)[..., None] - 0.5)
        picture = np.where(rows > horizon, ground, picture)
    return picture
