"""Country flags that look alike, waving in front of something.

The sixteen fall into families that differ in one stripe, one colour or one direction: upright tricolours,
lying tricolours, crosses. That makes this the fine-grained domain of the set. Classes are called by what
can be seen, colours in their order and the layout, so that every word is shared by several of them.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from .backdrops import shrink, soft_backdrop
from .domain import drawn_domain

_ART_SIZE = (120, 80)
_CANVAS = 96
WIDTH = (50.0, 84.0)
"""Range of a flag's width on the canvas, which is twice the picture's size."""

_RGB = {
    "red": (205, 32, 44),
    "dark red": (160, 30, 50),
    "orange": (245, 135, 40),
    "gold": (255, 206, 0),
    "green": (0, 140, 70),
    "pale blue": (0, 110, 190),
    "blue": (0, 55, 145),
    "navy": (10, 35, 95),
    "white": (246, 246, 246),
    "black": (22, 22, 22),
}

# Layout, then colours: along the pole for "upright", from the top for "lying"; a "nordic" flag has field,
# cross and, where there is one, the border of the cross.
_DESIGNS: dict[str, tuple[str, ...]] = {
    "France": ("upright", "navy", "white", "red"),
    "Italy": ("upright", "green", "white", "red"),
    "Ireland": ("upright", "green", "white", "orange"),
    "Belgium": ("upright", "black", "gold", "red"),
    "Germany": ("lying", "black", "red", "gold"),
    "the Netherlands": ("lying", "red", "white", "blue"),
    "Russia": ("lying", "white", "blue", "red"),
    "Hungary": ("lying", "red", "white", "green"),
    "Austria": ("lying", "red", "white", "red"),
    "Poland": ("lying", "white", "red"),
    "Ukraine": ("lying", "pale blue", "gold"),
    "Sweden": ("nordic", "pale blue", "gold"),
    "Finland": ("nordic", "white", "blue"),
    "Denmark": ("nordic", "red", "white"),
    "Norway": ("nordic", "red", "navy", "white"),
    "Switzerland": ("centred cross", "red", "white"),
}


_COUNTRIES = tuple(_DESIGNS)
_LAYOUTS = {
    "upright": "upright bands",
    "lying": "lying bands",
    "nordic": "a long cross",
    "centred cross": "a short cross",
}
_WORDS = {"navy": "blue", "pale blue": "blue", "gold": "yellow"}


def _description(country: str) -> str:
    layout, *colours = _DESIGNS[country]
    return f"a {' '.join(_WORDS.get(c, c) for c in colours)} flag with {_LAYOUTS[layout]}"


@cache
def artwork(class_index: int) -> np.ndarray:
    """A flag as its maker prints it: flat, upright, float RGB [80, 120, 3]."""
    layout, *names = _DESIGNS[_COUNTRIES[class_index]]
    colours = [_RGB[name] for name in names]
    width, height = _ART_SIZE
    image = Image.new("RGB", _ART_SIZE, colours[0])
    draw = ImageDraw.Draw(image)
    if layout == "upright":
        for i, colour in enumerate(colours):
            draw.rectangle((width * i // len(colours), 0, width, height), fill=colour)
    elif layout == "lying":
        for i, colour in enumerate(colours):
            draw.rectangle((0, height * i // len(colours), width, height), fill=colour)
    elif layout == "nordic":
        # The border is painted as a wider cross underneath.
        for colour, reach in zip(reversed(colours[1:]), (13, 7) if len(colours) == 3 else (8,), strict=True):
            draw.rectangle((42 - reach, 0, 42 + reach, height), fill=colour)
            draw.rectangle((0, 40 - reach, width, 40 + reach), fill=colour)
    else:
        draw.rectangle((51, 14, 69, 66), fill=colours[1])
        draw.rectangle((34, 31, 86, 49), fill=colours[1])
    return np.asarray(image, np.float32) / 255


def _paint(class_index: int, rng: np.random.Generator, split: str) -> np.ndarray:
    art = artwork(class_index)
    art_width, art_height = _ART_SIZE
    picture = soft_backdrop(rng, _CANVAS)

    width = rng.uniform(*WIDTH)
    height = width * rng.uniform(0.58, 0.74)
    angle = np.radians(rng.uniform(-16, 16))
    free_x, free_y = max(_CANVAS - width, 8) / 2, max(_CANVAS - height, 8) / 2
    centre_x = _CANVAS / 2 + rng.uniform(-free_x, free_x) * 0.8
    centre_y = _CANVAS / 2 + rng.uniform(-free_y, free_y) * 0.8
    rows, columns = np.mgrid[0:_CANVAS, 0:_CANVAS].astype(np.float32)
    dx, dy = columns - centre_x, rows - centre_y
    along = (dx * np.cos(angle) + dy * np.sin(angle)) / width + 0.5
    across = (dy * np.cos(angle) - dx * np.sin(angle)) / height + 0.5

    # Cloth is held at the pole, so that the wave grows towards the free end.
    phase = along * rng.uniform(4, 9) + across * rng.uniform(-1, 1) + rng.uniform(0, 2 * np.pi)
    strength = rng.uniform(0.01, 0.09) * (0.4 + 0.6 * np.clip(along, 0, 1))
    across = across + strength * np.sin(phase)
    shade = 1 + rng.uniform(1, 2.6) * strength * np.cos(phase)

    inside = (along >= 0) & (along < 1) & (across >= 0) & (across < 1)
    cloth = art[(across[inside] * art_height).astype(int), (along[inside] * art_width).astype(int)]
    fading = rng.uniform(0, 0.22)
    cloth = cloth * (1 - fading) + cloth.mean(1, keepdims=True) * fading
    if rng.random() < 0.6:
        pole = (along >= -rng.uniform(0.03, 0.06)) & (along < 0) & (across > -0.12)
        picture[pole] = rng.uniform(0.15, 0.8)
    picture[inside] = cloth * shade[inside, None] * rng.uniform(0.75, 1.1)
    return shrink(picture) + rng.normal(0, rng.uniform(0.01, 0.04), (48, 48, 1))


DOMAIN = drawn_domain(
    "flags",
    "Look-alike flags",
    tuple(_description(country) for country in _COUNTRIES),
    ("a photo of {}", "a picture of {}", "an image of {}", "{} in the wind"),
    _paint,
)
