"""Loose pictures: the stream's families as somebody else would show them.

Real CLIPs have met the subjects of a few-shot task before, in other guises and under captions that often
miss. So the pretraining sees flags that lie flat, small and faded, letters in other fonts on coloured
grounds, land in another light and closer up, objects small and of one colour. What a stream picture is
drawn with (its fonts, sizes, palettes, noise, seeds) is used by none of these; the drawings themselves (a
flag's design, an object's strokes, a glyph) are shared, and the model card says so.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from ..canvas import COLOURS, IMAGE_SIZE, Stroke, blend, colour, glyph, parse, sprite
from ..domains.aerial import view
from ..domains.flags import artwork
from ..domains.greek import CLASSES as GREEK
from ..domains.line_art import contours, pose
from ..domains.new_objects import NEW_OBJECTS
from ..domains.sketches import SKETCHED, known_object
from ..domains.textures import surface
from ..generator import FONTS_TRAIN, Stock, background, put
from .loose_captions import FAMILIES

FONTS = ("DejaVuSans-Oblique", "DejaVuSansMono-Bold", "DejaVuSerif-Italic")
"""Faces of loose Greek letters: neither the stream nor the general set uses them for any letter shown."""
# Largest side of the subject in pixels, next to what the stream has.
GREEK_SIZE = (16, 27)
OBJECT_SIZE = (12, 21)
SKETCH_SIZE = (18.0, 26.0)
FLAG_WIDTH = (18, 24)
SCAN_SIZE = (11, 17)
TEXTURE_DEPTH = (0.62, 0.75)
GAMMAS = ((0.5, 0.75), (1.35, 1.9))
_CLUTTER = ("star", "heart", "key", "cup", "bell", "leaf", "moon", "ring", "arrow", "diamond")


def _any_colour(rng: np.random.Generator) -> np.ndarray:
    return colour(rng, tuple(COLOURS)[rng.integers(len(COLOURS))])


def _ink_on(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """A colour that stands out from a picture's mean."""
    mean = ground.reshape(-1, 3).mean(0)
    for _ in range(20):
        ink = _any_colour(rng)
        if np.abs(ink - mean).sum() > 0.7:
            return ink
    return np.full(3, 0.05 if mean.sum() > 1.5 else 0.95, np.float32)


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR), np.float32) / 255


def _texture(label: int, rng: np.random.Generator, stock: Stock) -> np.ndarray:
    """Any two colours; seen through a magnifier, or as a patch on a scene."""
    drawn = surface(label, rng, 0.0, TEXTURE_DEPTH)
    side = int(rng.integers(40, 68))
    x, y = rng.integers(0, drawn.shape[0] - side, 2)
    part = drawn[y : y + side, x : x + side]
    if rng.random() < 0.5:
        return _resized(part, (IMAGE_SIZE, IMAGE_SIZE))
    picture, _, _ = background(rng, stock, 1.0)
    size = int(rng.integers(24, 36))
    x, y = rng.integers(2, IMAGE_SIZE - size - 1, 2)
    picture = picture.copy()
    picture[y : y + size, x : x + size] = _resized(part, (size, size))
    return picture


def _digit(label: int, rng: np.random.Generator, stock: Stock) -> np.ndarray:
    """A printed digit, scanned coarsely, in any ink."""
    picture, _, _ = background(rng, stock, 0.6)
    size = int(rng.integers(*SCAN_SIZE))
    scan = glyph(str(label), rng, size, FONTS_TRAIN)[..., 0]
    side = int(rng.integers(26, 47))
    cover = np.asarray(Image.fromarray(scan).resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
    x, y = rng.integers(0, IMAGE_SIZE - side + 1, 2)
    picture = picture.copy()
    patch = picture[y : y + side, x : x + side]
    patch += cover[..., None] * (_ink_on(rng, patch) - patch)
    return picture


def _sketch(label: int, rng: np.random.Generator, stock: Stock) -> np.ndarray:
    """A pencil, or a coloured line, on paper of any light colour."""
    paper = 1 - (1 - _any_colour(rng)) * rng.uniform(0.1, 0.45)
    line = contours(pose(known_object(SKETCHED[label]), rng, SKETCH_SIZE), rng.uniform(0.45, 0.65)).sum(-1)
    ink = _ink_on(rng, paper) if rng.random() < 0.5 else np.full(3, rng.uniform(0.1, 0.4))
    return paper + (ink - paper) * np.clip(line, 0, 1)[..., None]


def _flag(label: int, rng: np.random.Generator, stock: Stock) -> np.ndarray:
    """Flat, small and faded, upright on a pattern or a wall."""
    picture, _, _ = background(rng, stock, 1.0)
    width = int(rng.integers(*FLAG_WIDTH))
    height = int(width * rng.uniform(0.58, 0.74))
    cloth = _resized(artwork(label), (width, height))
    fading = rng.uniform(0.25, 0.5)
    cloth = cloth * (1 - fading) + fading * (cloth.mean(-1, keepdims=True) + 0.5) / 2
    x, y = rng.integers(1, IMAGE_SIZE - width), rng.integers(1, IMAGE_SIZE - height)
    picture = picture.copy()
    picture[y : y + height, x : x + width] = cloth
    return picture


_STROKES: dict[str, list[Stroke]] = {name: parse(drawing) for name, drawing in NEW_OBJECTS.items()}


def _object(label: int, rng: np.random.Generator, stock: Stock) -> np.ndarray:
    """Small and of one colour, on a scene."""
    scenes = tuple(stock.scenes.values())
    kinds = scenes[rng.integers(len(scenes))]
    picture = kinds[rng.integers(len(kinds))].astype(np.float32) / 255
    size = int(rng.integers(*OBJECT_SIZE))
    x, y = (int(v) for v in rng.integers(1, IMAGE_SIZE - size, 2))
    main = _ink_on(rng, picture[y : y + size, x : x + size])
    palette = np.stack([main, main * 0.85, main * 0.35, main * 0.4 + 0.6]).astype(np.float32)
    blend(picture, sprite(_STROKES[tuple(NEW_OBJECTS)[label]], rng, size), palette, x, y)
    return picture


def _land(label: int, rng: np.random.Generator, stock: Stock) -> np.ndarray:
    """Closer, in another light, often grey."""
    picture = np.clip(view(label, rng), 0, 1)
    side = int(rng.integers(30, 40))
    x, y = rng.integers(0, IMAGE_SIZE - side, 2)
    picture = _resized(picture[y : y + side, x : x + side], (IMAGE_SIZE, IMAGE_SIZE))
    picture = picture ** rng.uniform(*GAMMAS[rng.integers(len(GAMMAS))])
    if rng.random() < 0.5:
        return np.repeat(picture.mean(-1, keepdims=True), 3, -1)
    return picture * rng.uniform(0.75, 1.2, 3)


def _letter(label: int, rng: np.random.Generator, stock: Stock) -> np.ndarray:
    """Printed small in another face, on any ground."""
    picture, _, _ = background(rng, stock, 0.7)
    picture = picture.copy()
    size = int(rng.integers(*GREEK_SIZE))
    x, y = (int(v) for v in rng.integers(0, IMAGE_SIZE - size + 1, 2))
    ink = _ink_on(rng, picture[y : y + size, x : x + size])
    letter = glyph(GREEK[label][1], rng, size, FONTS)
    blend(picture, letter, np.tile(ink, (4, 1)).astype(np.float32), x, y)
    return picture


_DRAW: dict[str, Callable[[int, np.random.Generator, Stock], np.ndarray]] = dict(
    zip(FAMILIES, (_texture, _digit, _sketch, _flag, _object, _land, _letter), strict=True)
)


def new_stock(rng: np.random.Generator) -> Stock:
    """Backgrounds and clutter for a block of loose pictures."""
    return Stock.drawn(rng, 3, _CLUTTER)


def draw_loose(family: str, label: int, rng: np.random.Generator, stock: Stock) -> np.ndarray:
    """One loose picture.

    Args:
        family: one of ``FAMILIES``.
        label: class of the family.
        rng: source of randomness.
        stock: what ``new_stock`` made.

    Returns:
        uint8 RGB [48, 48, 3].
    """
    picture = np.asarray(_DRAW[family](label, rng, stock), np.float32)
    if rng.random() < 0.2:
        picture = picture.copy()
        put(rng, picture, stock, _CLUTTER[rng.integers(len(_CLUTTER))], "", largest=11)
    if rng.random() < 0.3:
        side = int(rng.integers(26, 40))
        picture = _resized(_resized(picture, (side, side)), (IMAGE_SIZE, IMAGE_SIZE))
    # Grain of two pixels, where the stream's is of one.
    grain = rng.standard_normal((IMAGE_SIZE // 2, IMAGE_SIZE // 2, 1)).repeat(2, 0).repeat(2, 1)
    picture = picture * rng.uniform(0.7, 1.15) + grain * rng.uniform(0.02, 0.06) + rng.uniform(-0.06, 0.06)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)
