"""Scenes of the pretraining: landscapes and places that fill the picture, also used as backgrounds."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .canvas import IMAGE_SIZE, colour, fbm

SCENES = (
    "beach",
    "city skyline",
    "night sky",
    "meadow",
    "desert",
    "sunset",
    "ocean",
    "mountains",
    "road",
    "rain",
    "snow",
    "underwater",
)


def scene(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A random example of a scene, ``48 × 48 × 3`` uint8.

    Raises:
        KeyError: for an unknown kind.
    """
    size = IMAGE_SIZE * 2
    drawn = _MAKERS[kind](rng, size)
    small = Image.fromarray((np.clip(drawn, 0, 1) * 255).astype(np.uint8)).resize(
        (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX
    )
    return np.asarray(small)


def _mix(size: int, top, bottom) -> np.ndarray:
    rows = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    return np.broadcast_to(
        np.asarray(top) + (np.asarray(bottom) - np.asarray(top)) * rows, (size, size, 3)
    ).copy()


def _sky(rng, size) -> np.ndarray:
    return _mix(
        size,
        np.array([0.35, 0.6, 0.95]) + rng.normal(0, 0.06, 3),
        np.array([0.75, 0.88, 1.0]) + rng.normal(0, 0.04, 3),
    )


def _below(picture, line, ground) -> np.ndarray:
    rows = np.arange(picture.shape[0])[:, None, None]
    return np.where(rows > np.asarray(line).reshape(1, -1, 1), ground, picture)


def _canvas(picture) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    return image, ImageDraw.Draw(image)


def _floats(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float32) / 255


def _rgb(values) -> tuple[int, ...]:
    return tuple(int(255 * v) for v in np.clip(values, 0, 1))


def _wavy(rng, size, height, amplitude) -> np.ndarray:
    x = np.arange(size)
    return height + amplitude * np.sin(x / size * rng.uniform(3, 7) + rng.uniform(0, 6))


def _beach(rng, size):
    horizon = size * rng.uniform(0.3, 0.45)
    picture = _below(_sky(rng, size), horizon, np.array([0.1, 0.45, 0.75]) + rng.normal(0, 0.05, 3))
    sand = np.array([0.93, 0.83, 0.55]) + rng.normal(0, 0.04, 3)
    return _below(picture, _wavy(rng, size, horizon + size * rng.uniform(0.15, 0.3), 5), sand)


def _city(rng, size):
    dusk = rng.random() < 0.5
    picture = _mix(size, [0.25, 0.25, 0.45], [0.95, 0.6, 0.4]) if dusk else _sky(rng, size)
    image, draw = _canvas(picture)
    x = -5
    while x < size:
        width, height = int(rng.integers(9, 20)), size * rng.uniform(0.3, 0.75)
        shade = rng.uniform(0.15, 0.5)
        draw.rectangle((x, size - height, x + width, size), fill=_rgb([shade, shade, shade * 1.15]))
        for wy in np.arange(size - height + 4, size - 3, 7):
            for wx in range(x + 3, x + width - 3, 5):
                if rng.random() < 0.7:
                    draw.rectangle((wx, wy, wx + 1.5, wy + 2.5), fill=(250, 230, 130))
        x += width + int(rng.integers(0, 3))
    return _floats(image)


def _night(rng, size):
    image, draw = _canvas(_mix(size, [0.02, 0.02, 0.12], [0.08, 0.08, 0.28]))
    for _ in range(int(rng.integers(25, 55))):
        x, y, r = *rng.uniform(0, size, 2), rng.uniform(0.6, 1.7)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 220))
    return _floats(image)


def _meadow(rng, size):
    grass = np.array([0.35, 0.7, 0.22]) + rng.normal(0, 0.05, 3)
    picture = _below(
        _sky(rng, size),
        _wavy(rng, size, size * rng.uniform(0.3, 0.5), 5),
        grass * (0.85 + 0.2 * rng.random((size, size, 1))),
    )
    image, draw = _canvas(picture)
    for _ in range(int(rng.integers(15, 35))):
        x, y = rng.uniform(0, size), rng.uniform(size * 0.55, size)
        draw.ellipse(
            (x - 2, y - 2, x + 2, y + 2),
            fill=_rgb(colour(rng, ("red", "yellow", "white", "pink")[rng.integers(4)])),
        )
    return _floats(image)


def _desert(rng, size):
    sand = np.array([0.87, 0.66, 0.36]) + rng.normal(0, 0.03, 3)
    line = _wavy(rng, size, size * rng.uniform(0.35, 0.5), 7)
    return _below(_below(_sky(rng, size), line, sand), line + size * 0.2 + _wavy(rng, size, 0, 6), sand * 0.8)


def _sunset(rng, size):
    image, draw = _canvas(_mix(size, np.array([0.35, 0.15, 0.45]) + rng.normal(0, 0.04, 3), [1.0, 0.6, 0.2]))
    x, y, r = rng.uniform(0.25, 0.75) * size, size * rng.uniform(0.5, 0.65), size * rng.uniform(0.09, 0.16)
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 228, 120))
    draw.rectangle(
        (0, y + r * 0.3, size, size), fill=_rgb(np.array([0.15, 0.08, 0.15]) + rng.random(3) * 0.1)
    )
    return _floats(image)


def _ocean(rng, size):
    y, x = np.mgrid[0:size, 0:size]
    waves = 0.12 * np.sin(y * rng.uniform(0.5, 0.9) + 2 * np.sin(x / size * 12 + y * 0.1) + rng.uniform(0, 6))
    sea = np.array([0.08, 0.32, 0.6]) + rng.normal(0, 0.04, 3) + waves[..., None]
    return _below(_sky(rng, size), size * rng.uniform(0.1, 0.35), sea)


def _mountains(rng, size):
    image, draw = _canvas(_sky(rng, size))
    for _ in range(int(rng.integers(2, 5))):
        x, h, shade = rng.uniform(0, size), size * rng.uniform(0.4, 0.75), rng.uniform(0.3, 0.5)
        w, base = h * rng.uniform(0.6, 1.0), size * rng.uniform(0.8, 0.95)
        draw.polygon([(x - w, base), (x, base - h), (x + w, base)], fill=_rgb([shade, shade, shade * 1.05]))
        draw.polygon(
            [(x - w / 4, base - h * 0.75), (x, base - h), (x + w / 4, base - h * 0.75)], fill=(245, 245, 250)
        )
    draw.rectangle((0, size * 0.84, size, size), fill=_rgb(colour(rng, "green") * 0.8))
    return _floats(image)


def _road(rng, size):
    horizon = int(size * rng.uniform(0.35, 0.5))
    ground = colour(rng, "green") if rng.random() < 0.6 else np.array([0.8, 0.65, 0.4])
    image, draw = _canvas(_below(_sky(rng, size), horizon, ground))
    far, near = rng.uniform(0.35, 0.65) * size, rng.uniform(0.3, 0.7) * size
    draw.polygon(
        [(far - 3, horizon), (far + 3, horizon), (near + size * 0.38, size), (near - size * 0.38, size)],
        fill=(75, 75, 80),
    )
    for t in (0.15, 0.4, 0.7):
        x, y, w = far + (near - far) * t, horizon + (size - horizon) * t, 0.6 + 2 * t
        draw.polygon(
            [(x - w, y), (x + w, y), (x + w, y + 5 + 6 * t), (x - w, y + 5 + 6 * t)], fill=(240, 235, 180)
        )
    return _floats(image)


def _rain(rng, size):
    image, draw = _canvas(
        _mix(size, np.array([0.35, 0.38, 0.45]) + rng.normal(0, 0.04, 3), [0.55, 0.6, 0.66])
    )
    slant = rng.uniform(-4, 4)
    for _ in range(int(rng.integers(50, 90))):
        x, y, length = *rng.uniform(-5, size, 2), rng.uniform(7, 13)
        draw.line([(x, y), (x + slant, y + length)], fill=(190, 210, 235), width=2)
    return _floats(image)


def _snow(rng, size):
    image, draw = _canvas(
        _below(
            _mix(size, [0.5, 0.6, 0.75], [0.75, 0.8, 0.88]),
            _wavy(rng, size, size * 0.72, 4),
            np.array([0.95, 0.96, 1.0]),
        )
    )
    for _ in range(int(rng.integers(45, 80))):
        x, y, r = *rng.uniform(0, size, 2), rng.uniform(1.2, 2.6)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(252, 252, 255))
    return _floats(image)


def _underwater(rng, size):
    light = 0.12 * fbm(rng, size, 18)[..., None]
    image, draw = _canvas(_mix(size, [0.15, 0.6, 0.75], [0.02, 0.2, 0.4]) + light)
    for _ in range(int(rng.integers(8, 18))):
        x, y, r = *rng.uniform(0, size, 2), rng.uniform(2, 5)
        draw.ellipse((x - r, y - r, x + r, y + r), outline=(190, 235, 245), width=1)
    for _ in range(int(rng.integers(3, 7))):
        x = rng.uniform(0, size)
        weed = [(x + 4 * np.sin(k / 2 + x), size - k * 5) for k in range(int(rng.integers(4, 9)))]
        draw.line(weed, fill=(30, 110, 60), width=4, joint="curve")
    return _floats(image)


_MAKERS = {
    "beach": _beach,
    "city skyline": _city,
    "night sky": _night,
    "meadow": _meadow,
    "desert": _desert,
    "sunset": _sunset,
    "ocean": _ocean,
    "mountains": _mountains,
    "road": _road,
    "rain": _rain,
    "snow": _snow,
    "underwater": _underwater,
}
