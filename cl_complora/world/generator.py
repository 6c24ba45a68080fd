"""Random pictures with captions: concept × colours × texture × position × count × background × photometric
noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from .canvas import COLOURS, IMAGE_SIZE, blend, colour, glyph, parse, sprite
from .captions import Thing, caption_pair, caption_several, caption_single, caption_whole
from .concepts import CONCEPTS, INDEX
from .objects import NATURAL, OBJECTS, SHAPES
from .patterns import PATTERNS, TEXTURES, pattern
from .scenes import SCENES, scene

FONTS_TRAIN = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralBol",
    "cmtt10",
    "cmr10",
)
FONTS_TEST = (
    "DejaVuSerif-Bold",
    "DejaVuSansMono-BoldOblique",
    "STIXGeneralItalic",
    "cmss10",
    "DejaVuSans-BoldOblique",
)
"""Held out of the pretraining: the general zero-shot set writes in these."""

_COLOUR_NAMES = tuple(COLOURS)
_STROKES = {name: parse(drawing) for name, drawing in (OBJECTS | SHAPES).items()}
_DRAWABLE = tuple(c.key for c in CONCEPTS if c.kind in ("object", "shape"))
_GLYPHS = tuple(c.key for c in CONCEPTS if c.kind == "glyph")
# How often each kind of picture is drawn; letters and digits are 36 concepts of fine detail, so they come
# often.
_MIX = (
    ("single", 0.42),
    ("glyph", 0.30),
    ("pattern", 0.06),
    ("scene", 0.06),
    ("pair", 0.10),
    ("several", 0.06),
)


def draw_concept(key: str, rng: np.random.Generator, size: int, fonts: tuple[str, ...]) -> np.ndarray:
    """Sprite of an object, shape or glyph: ``size × size × 4`` coverage."""
    return sprite(_STROKES[key], rng, size) if key in _STROKES else glyph(key, rng, size, fonts)


def held_out_sprite(key: str, rng: np.random.Generator) -> np.ndarray:
    """Sprite of a random size, letters and digits in the fonts that are held out of the pretraining."""
    return draw_concept(key, rng, _size(rng, key), FONTS_TEST)


@dataclass
class Stock:
    """Sprites, patterns and scenes drawn once and composed many times; colours, places and textures always
    differ.

    Attributes:
        sprites, patterns, scenes: concept → its drawings.
    """

    sprites: dict[str, list[np.ndarray]]
    patterns: dict[str, list[np.ndarray]]
    scenes: dict[str, list[np.ndarray]]

    @classmethod
    def drawn(
        cls, rng: np.random.Generator, variants: int, keys: tuple[str, ...] = (*_DRAWABLE, *_GLYPHS)
    ) -> Stock:
        """A stock for many pictures, letters and digits in the fonts of the pretraining.

        Args:
            rng: source of everything.
            variants: sprites per concept.
            keys: concepts to draw sprites of.
        """
        return cls(
            {
                key: [draw_concept(key, rng, _size(rng, key), FONTS_TRAIN) for _ in range(variants)]
                for key in keys
            },
            {kind: [pattern(kind, rng) for _ in range(max(2, variants))] for kind in PATTERNS},
            {kind: [scene(kind, rng) for _ in range(max(2, variants))] for kind in SCENES},
        )


def _size(rng: np.random.Generator, key: str) -> int:
    low = 20 if key in _GLYPHS else 18
    return int(np.clip(rng.normal(36, 6), low, 46))


def _pick(rng: np.random.Generator, options):
    return options[rng.integers(len(options))]


def _other_colour(rng: np.random.Generator, avoid: tuple[str, ...]) -> str:
    while True:
        name = _pick(rng, _COLOUR_NAMES)
        if name not in avoid:
            return name


@dataclass
class Picture:
    """One sample: float image in 0..1, its caption, its one main concept (−1 for several), and what writes
    another caption of it."""

    image: np.ndarray
    caption: str
    concept: int
    write: Callable[[np.random.Generator], str]


def _captioned(
    rng: np.random.Generator, image: np.ndarray, concept: int, write: Callable[[np.random.Generator], str]
) -> Picture:
    return Picture(image, write(rng), concept, write)


def background(rng: np.random.Generator, stock: Stock, busy: float) -> tuple[np.ndarray, str, str]:
    """(image, phrase for captions, dominant colour name or ``""``); ``busy`` in 0..1 allows patterns and
    scenes."""
    draw = rng.random()
    if draw < 0.28 * busy:
        kind = _pick(rng, SCENES)
        return _pick(rng, stock.scenes[kind]).astype(np.float32) / 255, kind, ""
    name = _other_colour(rng, ())
    base = colour(rng, name)
    if name not in ("black", "white"):
        light = rng.uniform(0.2, 0.7)
        base = base * (1 - light) + light
    image = np.broadcast_to(base, (IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)
    if draw < 0.55 * busy:
        second = _other_colour(rng, (name,))
        kind = _pick(rng, PATTERNS)
        mix = _pick(rng, stock.patterns[kind])[..., None] * rng.uniform(0.2, 0.55)
        return image + (colour(rng, second) - image) * mix, f"{name} and {second} {kind} background", name
    if draw < 0.8:
        shade = np.clip(base + rng.normal(0, 0.15, 3), 0, 1).astype(np.float32)
        mix = _pick(rng, stock.patterns[("gradient", "clouds")[rng.integers(2)]])[..., None]
        return image + (shade - image) * mix, f"{name} background", name
    return image.copy(), f"{name} background", name


def put(
    rng: np.random.Generator,
    image: np.ndarray,
    stock: Stock,
    key: str,
    behind: str,
    cell: tuple[float, float] | None = None,
    largest: int | None = None,
    colour_name: str | None = None,
) -> Thing:
    """Paint a concept onto an image in place and tell what it looks like.

    Args:
        behind: colour name of the background, which the thing avoids.
        cell: centre in 0..1, or None for anywhere.
        largest: scale the sprite down to this many pixels.
        colour_name: main colour, or None for a natural or random one.
    """
    cover = _pick(rng, stock.sprites[key])
    if largest is not None and cover.shape[0] > largest:
        parts = [
            np.asarray(Image.fromarray(cover[..., p]).resize((largest, largest), Image.Resampling.BOX))
            for p in range(4)
        ]
        cover = np.stack(parts, -1)
    size = cover.shape[0]
    free = IMAGE_SIZE - size
    if cell is None:
        x, y = (int(v) for v in rng.integers(min(-2, free), max(free, 0) + 3, 2))
    else:
        x, y = (int(np.clip(c * IMAGE_SIZE - size / 2 + rng.uniform(-2, 2), -2, free + 2)) for c in cell)
    under = image[max(y, 0) : y + size : 4, max(x, 0) : x + size : 4].reshape(-1, 3).mean(0)
    natural = NATURAL.get(key)
    usual = natural is not None and colour_name is None and rng.random() < 0.55 and natural[0] != behind
    main = colour_name or (natural[0] if usual else _other_colour(rng, (behind,)))
    shade = colour(rng, main)
    for _ in range(6):  # a thing that cannot be told from what lies behind it teaches nothing
        if np.abs(shade - under).sum() > 0.55:
            break
        main = colour_name or _other_colour(rng, (behind,))
        shade = colour(rng, main)
    second = natural[1] if usual else _other_colour(rng, (main, behind))
    dark = np.full(3, rng.uniform(0.02, 0.2), np.float32) * (0.4 if under.sum() < 0.6 else 1)
    palette = np.stack([shade, colour(rng, second), dark, np.full(3, rng.uniform(0.8, 1.0), np.float32)])
    texture, kind, stripe = None, "", ""
    if rng.random() < 0.1:
        kind, stripe = _pick(rng, tuple(TEXTURES)), _other_colour(rng, (main, behind))
        texture = _pick(rng, stock.patterns[kind])[:size, :size, None] * (colour(rng, stripe) - shade)
    blend(image, cover, palette.astype(np.float32), x, y, texture)
    return Thing(
        CONCEPTS[INDEX[key]].name,
        main,
        kind,
        stripe,
        size,
        ((x + size / 2) / IMAGE_SIZE, (y + size / 2) / IMAGE_SIZE),
    )


def photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Photometric noise: brightness, contrast, tint, blur, grain; float image in 0..1."""
    contrast, brightness = rng.uniform(0.75, 1.2), rng.uniform(-0.1, 0.1)
    image = (image - 0.5) * (contrast * rng.uniform(0.95, 1.05, 3)).astype(np.float32) + (0.5 + brightness)
    if rng.random() < 0.2:
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        image = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] + 2 * image) / 6
    if rng.random() < 0.6:
        grain = rng.standard_normal((IMAGE_SIZE, IMAGE_SIZE, 1), dtype=np.float32)
        image = image + grain * rng.uniform(0.005, 0.045)
    return np.clip(image, 0, 1)


def single(rng: np.random.Generator, stock: Stock, key: str, busy: float) -> Picture:
    """One object, shape or glyph on a background."""
    image, phrase, behind = background(rng, stock, busy)
    thing = put(rng, image, stock, key, behind)
    return _captioned(rng, image, INDEX[key], partial(caption_single, thing=thing, background=phrase))


def whole(rng: np.random.Generator, stock: Stock, key: str) -> Picture:
    """A pattern or a scene that fills the picture."""
    if key in SCENES:
        image = _pick(rng, stock.scenes[key]).astype(np.float32) / 255
        image = image[:, ::-1] if rng.random() < 0.5 else image
        return _captioned(rng, image, INDEX[key], partial(caption_whole, name=key, colours=()))
    first = _other_colour(rng, ())
    second = _other_colour(rng, (first,))
    a, b = colour(rng, first), colour(rng, second)
    while np.abs(a - b).sum() < 0.5:
        second = _other_colour(rng, (first,))
        b = colour(rng, second)
    field = _pick(rng, stock.patterns[key])[..., None]
    write = partial(caption_whole, name=CONCEPTS[INDEX[key]].name, colours=(first, second))
    return _captioned(rng, a + (b - a) * field, INDEX[key], write)


def pair(rng: np.random.Generator, stock: Stock, busy: float) -> Picture:
    """Two objects or shapes beside or above each other."""
    image, phrase, behind = background(rng, stock, busy)
    first, second = (_DRAWABLE[i] for i in rng.choice(len(_DRAWABLE), 2, replace=False))
    side = rng.random() < 0.6
    cells = ((0.27, 0.5), (0.73, 0.5)) if side else ((0.5, 0.27), (0.5, 0.73))
    things = [
        put(rng, image, stock, key, behind, cell, 24)
        for key, cell in zip((first, second), cells, strict=True)
    ]
    write = partial(caption_pair, first=things[0], second=things[1], side=side, background=phrase)
    return _captioned(rng, image, -1, write)


def several(rng: np.random.Generator, stock: Stock, busy: float) -> Picture:
    """One object or shape, two to five times."""
    image, phrase, behind = background(rng, stock, busy * 0.5)
    key, count = _pick(rng, _DRAWABLE), int(rng.integers(2, 6))
    shade = _other_colour(rng, (behind,))
    grid = [(x, y) for x in (0.2, 0.5, 0.8) for y in (0.2, 0.5, 0.8)]
    for place in rng.choice(len(grid), count, replace=False):
        thing = put(rng, image, stock, key, behind, grid[place], 16, shade)
    write = partial(caption_several, thing=thing, count=count, background=phrase)
    return _captioned(rng, image, INDEX[key], write)


def sample(rng: np.random.Generator, stock: Stock, busy: float = 1.0) -> Picture:
    """One random picture with photometric noise.

    Args:
        busy: 0 for plain backgrounds and single things only, 1 for everything (the curriculum's knob).
    """
    kinds, shares = zip(*_MIX, strict=True)
    kind = kinds[int(np.searchsorted(np.cumsum(shares), rng.random(), side="right").clip(max=len(kinds) - 1))]
    if kind in ("pair", "several") and rng.random() > busy:
        kind = "single"
    if kind == "single":
        picture = single(rng, stock, _pick(rng, _DRAWABLE), busy)
    elif kind == "glyph":
        picture = single(rng, stock, _pick(rng, _GLYPHS), busy)
    elif kind == "pair":
        picture = pair(rng, stock, busy)
    elif kind == "several":
        picture = several(rng, stock, busy)
    else:
        picture = whole(rng, stock, _pick(rng, PATTERNS if kind == "pattern" else SCENES))
    picture.image = photograph(rng, picture.image)
    return picture


def block(
    seed: int, number: int, images: int, busy: float = 1.0, variants: int = 6
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Block ``number`` of the endless stream of pictures; any block can be drawn alone.

    Returns:
        ``images × 48 × 48 × 3`` uint8, captions, and the main concept of each (−1 for several).
    """
    rng = np.random.default_rng([seed, number])
    stock = Stock.drawn(rng, variants)
    pictures = [sample(rng, stock, busy) for _ in range(images)]
    pixels = np.stack([(p.image * 255).astype(np.uint8) for p in pictures])
    return pixels, [p.caption for p in pictures], np.array([p.concept for p in pictures])
