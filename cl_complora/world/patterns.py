"""Patterns of the pretraining: scalar fields in 0..1 that mix two colours, as backgrounds and as textures."""

from __future__ import annotations

import math

import numpy as np

from .canvas import IMAGE_SIZE, fbm

PATTERNS = (
    "stripes",
    "checkerboard",
    "polka dots",
    "grid",
    "zigzag",
    "waves",
    "static noise",
    "gradient",
    "rings",
    "clouds",
    "spiral",
    "rays",
)
# Those that still show when an object is filled with them, and the adjective of each.
TEXTURES = {
    "stripes": "striped",
    "checkerboard": "checkered",
    "polka dots": "dotted",
    "zigzag": "zigzag",
    "waves": "wavy",
    "grid": "grid",
}


def _soft(x: np.ndarray, edge: float = 1.0) -> np.ndarray:
    return np.clip(x / edge * 0.5 + 0.5, 0, 1)


def _axes(rng: np.random.Generator, size: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    x, y = x - size / 2 + rng.uniform(-9, 9), y - size / 2 + rng.uniform(-9, 9)
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def pattern(kind: str, rng: np.random.Generator, size: int = IMAGE_SIZE) -> np.ndarray:
    """A random example of a pattern, ``size × size`` in 0..1.

    Raises:
        KeyError: for an unknown kind.
    """
    return _MAKERS[kind](rng, size, rng.uniform(6, 13)).astype(np.float32)


def _stripes(rng, size, period):
    u, _ = _axes(rng, size, rng.uniform(0, np.pi))
    return _soft(np.sin(u * 2 * np.pi / period) * period / 4)


def _checkerboard(rng, size, period):
    u, v = _axes(rng, size, rng.uniform(-0.3, 0.3))
    return _soft(np.sin(u * np.pi / period) * np.sin(v * np.pi / period) * period)


def _dots(rng, size, period):
    u, v = _axes(rng, size, rng.uniform(-0.8, 0.8))
    radius = period * rng.uniform(0.24, 0.36)
    return _soft(radius - np.hypot(u % period - period / 2, v % period - period / 2))


def _grid(rng, size, period):
    u, v = _axes(rng, size, rng.uniform(-0.3, 0.3))
    near = np.minimum(abs(u % period - period / 2), abs(v % period - period / 2))
    return _soft(rng.uniform(0.7, 1.6) - near)


def _zigzag(rng, size, period):
    u, v = _axes(rng, size, rng.uniform(-0.3, 0.3) + np.pi / 2 * (rng.random() < 0.5))
    width = period * rng.uniform(0.9, 1.5)
    return _soft(np.sin((v + abs(u % width - width / 2) * 1.3) * 2 * np.pi / period) * period / 4)


def _waves(rng, size, period):
    u, v = _axes(rng, size, rng.uniform(-0.3, 0.3) + np.pi / 2 * (rng.random() < 0.3))
    width = period * rng.uniform(1.5, 2.4)
    return _soft(
        np.sin((v + period * 0.35 * np.sin(u * 2 * np.pi / width)) * 2 * np.pi / period) * period / 4
    )


def _static(rng, size, period):
    cell = int(rng.integers(1, 4))
    grain = rng.random((size // cell + 1, size // cell + 1))
    return np.kron(grain, np.ones((cell, cell)))[:size, :size]


def _gradient(rng, size, period):
    u, _ = _axes(rng, size, rng.uniform(0, 2 * np.pi))
    return (u - u.min()) / (u.max() - u.min())


def _from_centre(rng, size):
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    cx, cy = rng.uniform(size * 0.3, size * 0.7, 2)
    return np.hypot(x - cx, y - cy), np.arctan2(y - cy, x - cx)


def _rings(rng, size, period):
    radius, _ = _from_centre(rng, size)
    return _soft(np.sin(radius * 2 * np.pi / period) * period / 4)


def _clouds(rng, size, period):
    return fbm(rng, size, rng.uniform(14, 24))


def _spiral(rng, size, period):
    radius, angle = _from_centre(rng, size)
    sense = 1 if rng.random() < 0.5 else -1
    return _soft(np.sin(radius * 2 * np.pi / (period * 1.2) + sense * angle) * period / 4)


def _rays(rng, size, period):
    radius, angle = _from_centre(rng, size)
    return _soft(np.sin(angle * int(rng.integers(6, 12)) + rng.uniform(0, 6.28)) * np.minimum(radius, 12) / 3)


_MAKERS = {
    "stripes": _stripes,
    "checkerboard": _checkerboard,
    "polka dots": _dots,
    "grid": _grid,
    "zigzag": _zigzag,
    "waves": _waves,
    "static noise": _static,
    "gradient": _gradient,
    "rings": _rings,
    "clouds": _clouds,
    "spiral": _spiral,
    "rays": _rays,
}
