"""Drawing on small images: noise, primitives, anti-aliased sprites, glyphs; all randomness from explicit
generators."""

from __future__ import annotations

import math
import os
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

IMAGE_SIZE = 48
OVERSAMPLING = 4
PARTS = 4

# (kind, part, width, points): kind P is a filled polygon, L a stroke of that width; points are n × 2.
Stroke = tuple[str, int, float, np.ndarray]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (210, 40, 40),
    "green": (50, 160, 60),
    "blue": (45, 80, 205),
    "yellow": (240, 215, 50),
    "orange": (240, 140, 40),
    "purple": (130, 50, 165),
    "pink": (245, 150, 190),
    "brown": (120, 75, 40),
    "black": (25, 25, 25),
    "white": (240, 240, 240),
    "gray": (135, 135, 135),
    "cyan": (70, 200, 215),
}


def colour(rng: np.random.Generator, name: str, spread: float = 0.07) -> np.ndarray:
    """A shade of a named colour, float RGB in 0..1."""
    base = np.array(COLOURS[name], np.float32) / 255
    return np.clip(base + rng.normal(0, spread, 3) + rng.normal(0, spread * 0.7), 0, 1).astype(np.float32)


def value_noise(rng: np.random.Generator, size: int, cell: float) -> np.ndarray:
    """Smooth noise in about 0..1 with features of ``cell`` pixels, ``size × size``."""
    count = max(2, math.ceil(size / cell) + 2)
    grid = Image.fromarray((rng.random((count, count)) * 255).astype(np.uint8))
    side = max(size, int(count * cell))
    smooth = np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
    return smooth[:size, :size]


def fbm(rng: np.random.Generator, size: int, cell: float, octaves: int = 3) -> np.ndarray:
    """Fractal noise stretched to 0..1, ``size × size``."""
    total = sum(value_noise(rng, size, max(2.0, cell / 2**i)) * 0.5**i for i in range(octaves))
    total = total - total.min()
    return total / max(float(total.max()), 1e-6)


def parse(drawing: str) -> list[Stroke]:
    """A drawing of ``objects.py`` as polygons and strokes in [-1, 1]².

    Raises:
        ValueError: for an unknown primitive.
    """
    strokes: list[Stroke] = []
    for primitive in drawing.split(";"):
        word, *numbers = primitive.split()
        kind, part = word[0], int(word[1:])
        if kind in "PL":
            width = float(numbers.pop(0)) if kind == "L" else 0.0
            points = np.array([[float(v) for v in pair.split(",")] for pair in numbers])
            strokes.append((kind, part, width, points))
            continue
        v = [float(number) for number in numbers]
        if kind == "R":
            points = np.array([[v[0], v[1]], [v[2], v[1]], [v[2], v[3]], [v[0], v[3]]])
        elif kind in "EH":
            turn = np.linspace(
                0 if kind == "E" else np.pi, 2 * np.pi, 28 if kind == "E" else 18, endpoint=kind == "H"
            )
            points = np.stack([v[0] + v[2] * np.cos(turn), v[1] + v[3] * np.sin(turn)], 1)
        elif kind == "A":
            turn = np.radians(np.linspace(v[5], v[6], 26))
            points = np.stack([v[1] + v[3] * np.cos(turn), v[2] + v[4] * np.sin(turn)], 1)
            strokes.append(("L", part, v[0], points))
            continue
        elif kind == "S":
            corners = np.arange(2 * int(v[4]))
            turn = -np.pi / 2 + corners * np.pi / int(v[4])
            radius = np.where(corners % 2 == 0, v[2], v[3])
            points = np.stack([v[0] + radius * np.cos(turn), v[1] + radius * np.sin(turn)], 1)
        else:
            raise ValueError(f"unknown primitive {word!r}")
        strokes.append(("P", part, 0.0, points))
    return strokes


def affine(rng: np.random.Generator, turn: float, shear: float, stretch: float, mirror: bool) -> np.ndarray:
    """Random 2 × 2 matrix: rotation up to ``turn`` degrees, shear, stretch, perhaps a mirror image."""
    angle = math.radians(rng.uniform(-turn, turn))
    scale = math.exp(rng.uniform(-stretch, stretch) / 2)
    matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = matrix @ np.array([[scale, rng.uniform(-shear, shear)], [0, 1 / scale]])
    return matrix @ np.diag([-1, 1]) if mirror and rng.random() < 0.5 else matrix


def coverage(drawing: np.ndarray, size: int) -> np.ndarray:
    """Share of each pixel that each part covers: ``(4·size)²`` part numbers → ``size × size × 4`` uint8."""
    cells = drawing.reshape(size, OVERSAMPLING, size, OVERSAMPLING)
    scale = 255 / OVERSAMPLING**2
    return np.stack(
        [((cells == part).sum((1, 3)) * scale).astype(np.uint8) for part in range(1, PARTS + 1)], -1
    )


def sprite(strokes: list[Stroke], rng: np.random.Generator, size: int) -> np.ndarray:
    """An object drawn with a shaking hand: turned, sheared, bent, outlined or not.

    Returns:
        ``size × size × 4`` uint8 coverage by part.
    """
    side = size * OVERSAMPLING
    matrix = affine(rng, 14, 0.15, 0.2, mirror=True)
    wave, phase, bend = rng.uniform(1, 3, 2), rng.uniform(0, 6.28, 2), rng.uniform(0, 0.05, 2)
    thickness = math.exp(rng.uniform(-0.3, 0.3))
    outline = int(OVERSAMPLING * rng.uniform(0.5, 1.2)) if rng.random() < 0.7 else 0
    moved = []
    for kind, part, width, points in strokes:
        q = points + rng.normal(0, 0.02, 2)
        if len(points) < 16:  # curves are polygons of many points; shaking each would roughen them
            q = q + rng.normal(0, 0.03, points.shape)
        q = q + bend * np.sin(wave * q[:, ::-1] * 2 + phase)
        moved.append((kind, part, width, q @ matrix.T))
    everything = np.concatenate([q for _, _, _, q in moved])
    low, high = everything.min(0), everything.max(0)
    scale = side * 0.95 / max(float((high - low).max()), 0.5)
    image = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)
    for kind, part, width, q in moved:
        path = [tuple(point) for point in (q - (low + high) / 2) * scale + side / 2]
        if kind == "P":
            draw.polygon(path, fill=part)
            if outline and part in (1, 2, 4):
                draw.line([*path, path[0]], fill=3, width=outline, joint="curve")
        else:
            stroke = max(2, int(width * scale * thickness))
            draw.line(path, fill=part, width=stroke, joint="curve")
            radius = stroke / 2 - 0.5
            for x, y in (path[0], path[-1]):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=part)
    return coverage(np.asarray(image), size)


@lru_cache(64)
def font(name: str) -> ImageFont.FreeTypeFont:
    """One of matplotlib's own fonts, by file name without suffix."""
    import matplotlib

    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", name + ".ttf"), 96)


def glyph(character: str, rng: np.random.Generator, size: int, fonts: tuple[str, ...]) -> np.ndarray:
    """A character in one of the fonts, turned and sheared a little: ``size × size × 4`` coverage (part 1
    only)."""
    side = size * OVERSAMPLING
    face = font(fonts[rng.integers(len(fonts))])
    left, top, right, bottom = face.getbbox(character)
    pad = 12
    page = Image.new("L", (right - left + 2 * pad, bottom - top + 2 * pad), 0)
    ImageDraw.Draw(page).text((pad - left, pad - top), character, fill=255, font=face)
    scale = max(right - left, bottom - top) * 1.12 / side
    inverse = np.linalg.inv(affine(rng, 12, 0.15, 0.25, mirror=False)) * scale
    centre = np.array([page.width / 2, page.height / 2]) - inverse @ np.array([side / 2, side / 2])
    matrix = (inverse[0, 0], inverse[0, 1], centre[0], inverse[1, 0], inverse[1, 1], centre[1])
    drawn = page.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return coverage((np.asarray(drawn) > 127).astype(np.uint8), size)


def blend(image: np.ndarray, sprite_: np.ndarray, palette: np.ndarray, x: int, y: int, texture=None) -> None:
    """Paint a sprite onto a float RGB image in place.

    Args:
        image: ``n × n × 3`` float.
        sprite_: ``h × h × 4`` uint8 coverage by part.
        palette: ``4 × 3`` colour of each part.
        x, y: where its upper left corner goes; it may reach over the edge.
        texture: ``(h × h × 3)`` colour difference added to the main part, or None.
    """
    h, n = sprite_.shape[0], image.shape[0]
    cover = sprite_.astype(np.float32) * (1 / 255)
    rgb = cover @ palette
    if texture is not None:
        rgb += texture * cover[..., :1]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + h, n), min(y + h, n)
    if x0 >= x1 or y0 >= y1:
        return
    inside = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
    alpha = cover.sum(-1, keepdims=True)[inside]
    view = image[y0:y1, x0:x1]
    view *= 1 - alpha
    view += rgb[inside]
