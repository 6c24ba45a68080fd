"""Objects as line drawings and as solid shapes, the common ground of the drawn styles.

The pretraining world draws an object as patches of colour. Here the same primitives leave only contours:
neighbouring primitives of one part share one contour, and what lies in front hides what lies behind.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from ..canvas import IMAGE_SIZE, OVERSAMPLING, Stroke, affine, coverage

_SIDE = IMAGE_SIZE * OVERSAMPLING
SIZE = (27.0, 44.0)
"""Usual range of an object's larger side, in pixels."""


def pose(
    primitives: list[Stroke], rng: np.random.Generator, size: tuple[float, float] = SIZE
) -> list[Stroke]:
    """Places an object in the picture, bent, turned and stretched a little and by a hand that shakes.

    Args:
        primitives: The object in its own frame.
        rng: Source of randomness.
        size: Range of the object's larger side, in pixels.

    Returns:
        The object with points and line widths in pixels of the picture.
    """
    shape = affine(rng, 15, 0.15, 0.24, mirror=True)
    bend, phase = rng.uniform(0, 0.05, 2), rng.uniform(0, 2 * np.pi, 2)
    posed = []
    for kind, part, width, points in primitives:
        moved = points + rng.normal(0, 0.02, 2)
        if len(points) < 16:  # Curves are polygons of many points; shaking each would roughen them.
            moved = moved + rng.normal(0, 0.03, points.shape)
        moved = moved + bend * np.sin(3 * moved[:, ::-1] + phase)
        posed.append((kind, part, width, moved @ shape.T))
    everything = np.concatenate([points for _, _, _, points in posed])
    low, high = everything.min(0), everything.max(0)
    extent = rng.uniform(*size)
    scale = extent / (high - low).max()
    free = np.maximum(IMAGE_SIZE - 1 - (high - low) / (high - low).max() * extent, 0) / 2
    centre = IMAGE_SIZE / 2 + rng.uniform(-free, free)
    return [
        (kind, part, width * scale, (points - (low + high) / 2) * scale + centre)
        for kind, part, width, points in posed
    ]


def _path(stroke: Stroke) -> list[tuple[float, float]]:
    return [(x, y) for x, y in (stroke[3] * OVERSAMPLING).tolist()]


def _line(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], value: int, width: float) -> None:
    """A line with round ends."""
    draw.line(points, fill=value, width=max(round(width), 1), joint="curve")
    radius = width / 2 - 0.5
    if radius > 1:
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value)


def contours(posed: list[Stroke], pen: float) -> np.ndarray:
    """Draws the outlines of an object.

    Args:
        posed: What ``pose`` returned.
        pen: Width of the pen, in pixels.

    Returns:
        How much of each pixel the outlines of each part cover, float array [48, 48, 4].
    """
    drawing = Image.new("L", (_SIDE, _SIDE), 0)
    draw = ImageDraw.Draw(drawing)
    pen = pen * OVERSAMPLING
    start = 0
    while start < len(posed):
        end = start
        while end < len(posed) and posed[end][1] == posed[start][1]:
            end += 1
        group = [(*stroke[:2], stroke[2] * OVERSAMPLING, _path(stroke)) for stroke in posed[start:end]]
        for kind, part, width, path in group:
            if kind == "P":
                draw.line(path + path[:2], fill=part, width=round(2 * pen), joint="curve")
            elif width > 2.5 * pen:
                _line(draw, path, part, width + 2 * pen)
        for kind, _, width, path in group:
            if kind == "P":
                draw.polygon(path, fill=0)
            elif width > 2.5 * pen:
                _line(draw, path, 0, width)
        for kind, part, width, path in group:
            if kind == "L" and width <= 2.5 * pen:
                _line(draw, path, part, pen)
        start = end
    return coverage(np.asarray(drawing), IMAGE_SIZE) / np.float32(255)


def solid(posed: list[Stroke]) -> np.ndarray:
    """Fills an object in.

    Args:
        posed: What ``pose`` returned.

    Returns:
        How much of each pixel the object covers, float array [48, 48].
    """
    drawing = Image.new("L", (_SIDE, _SIDE), 0)
    draw = ImageDraw.Draw(drawing)
    for stroke in posed:
        kind, part, width, _ = stroke
        path = _path(stroke)
        if kind == "P":
            # A pixel's rim closes the cracks that the shaking hand leaves between neighbours.
            draw.polygon(path, fill=int(part > 0), outline=int(part > 0), width=OVERSAMPLING)
        else:
            _line(draw, path, int(part > 0), max(width, 1) * OVERSAMPLING)
    return coverage(np.asarray(drawing), IMAGE_SIZE)[..., 0] / np.float32(255)
