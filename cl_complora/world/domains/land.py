"""A patch of ground seen from above, to draw on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..canvas import fbm, value_noise

LAND_SIZE = 96
_SOIL = np.array([0.50, 0.45, 0.31], np.float32)
_GRASS = np.array([0.32, 0.44, 0.22], np.float32)
_SHADE = (26, 48, 24)


class Land:
    """A patch of ground with a frame of reference of its own: origin in the middle, turned at random."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        turn = rng.uniform(0, 2 * np.pi)
        self.axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        dryness = np.clip(fbm(rng, LAND_SIZE, 40, 4) + rng.uniform(-0.35, 0.2), 0, 1)[..., None]
        grain = 0.10 * (value_noise(rng, LAND_SIZE, 4) - 0.5)[..., None]
        self.pixels = (_GRASS + (_SOIL - _GRASS) * dryness + grain).astype(np.float32)

    def colour(self, base: Sequence[float], spread: float = 0.03) -> tuple[int, ...]:
        """A shade of a colour, as PIL wants it."""
        *own, light = self.rng.normal(0, spread, 4).tolist()
        return tuple(
            min(max(int((channel + light + noise / 2) * 255), 0), 255)
            for channel, noise in zip(base, own, strict=True)
        )

    def at(self, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Turns points of the land's own frame into drawing coordinates."""
        (ax, ay), (bx, by) = self.axes.tolist()
        half = LAND_SIZE / 2
        return [(a * ax + b * bx + half, a * ay + b * by + half) for a, b in points]

    def plane(self) -> tuple[np.ndarray, np.ndarray]:
        """The land's own coordinates of every point of the drawing."""
        rows, columns = np.mgrid[0:LAND_SIZE, 0:LAND_SIZE] - LAND_SIZE / 2
        return (
            columns * self.axes[0, 0] + rows * self.axes[0, 1],
            columns * self.axes[1, 0] + rows * self.axes[1, 1],
        )

    def fill(self, inside: np.ndarray, colour: np.ndarray, strength: float = 1.0) -> None:
        """Covers part of the land with a colour, which keeps some grain."""
        tint = (colour + self.rng.normal(0, 0.025, 3)).astype(np.float32)
        cover = (np.clip(inside, 0, 1) * strength).astype(np.float32)[..., None]
        self.pixels += cover * (tint - self.pixels)

    def pencil(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        """Starts drawing figures on the land; give the image to ``keep`` when done."""
        image = Image.fromarray((np.clip(self.pixels, 0, 1) * 255).astype(np.uint8))
        return image, ImageDraw.Draw(image)

    def keep(self, image: Image.Image) -> None:
        """Makes a finished drawing the new face of the land."""
        self.pixels = np.asarray(image, np.float32) / 255

    def block(
        self,
        draw: ImageDraw.ImageDraw,
        x: float,
        y: float,
        width: float,
        depth: float,
        colour: tuple[int, ...],
    ) -> None:
        """A building: its shadow to the south-east, its roof and the darker half of the roof."""
        left, right, near, far = x - width / 2, x + width / 2, y - depth / 2, y + depth / 2
        corners = self.at([(left, near), (right, near), (right, far), (left, far)])
        draw.polygon([(px + 1.6, py + 1.6) for px, py in corners], fill=(45, 45, 42))
        draw.polygon(corners, fill=colour)
        half = self.at([(left, y), (right, y), (right, far), (left, far)])
        draw.polygon(half, fill=tuple(int(c * 0.86) for c in colour))

    def tree(self, draw: ImageDraw.ImageDraw, x: float, y: float, radius: float) -> None:
        """A crown with its shadow and its sunlit side, in drawing coordinates."""
        crown = self.colour((0.19, 0.34, 0.14), 0.03)
        draw.ellipse((x - radius + 1, y - radius + 1, x + radius + 1.5, y + radius + 1.5), fill=_SHADE)
        draw.ellipse((x - radius, y - radius, x + radius * 0.8, y + radius * 0.8), fill=crown)

    def trees(
        self, draw: ImageDraw.ImageDraw, count: int, smallest: float = 1.5, largest: float = 3.5
    ) -> None:
        """Trees scattered anywhere."""
        places = self.rng.uniform((0, 0, smallest), (LAND_SIZE, LAND_SIZE, largest), (count, 3))
        for x, y, radius in places.tolist():
            self.tree(draw, x, y, radius)

    def winding(self, bend: float) -> np.ndarray:
        """Distance of every point from a line that crosses the land, bending by up to ``bend``."""
        along, across = self.plane()
        middle = bend * np.sin(along * self.rng.uniform(0.04, 0.075) + self.rng.uniform(0, 6.3))
        middle += bend * 0.3 * np.sin(along * self.rng.uniform(0.1, 0.16) + self.rng.uniform(0, 6.3))
        return np.abs(across - middle - self.rng.uniform(-12, 12))
