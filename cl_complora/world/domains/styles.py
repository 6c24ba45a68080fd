"""The same ten objects in five styles: a stream in which the domain moves on and the classes stay."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from ..canvas import IMAGE_SIZE, Stroke, fbm
from ..objects import NATURAL
from .chalk import draw_chalk
from .domain import Domain, Painter, drawn_domain, with_article
from .line_art import contours, pose, solid
from .painted import paint_object
from .sketches import known_object

_OBJECTS = ("house", "car", "fish", "cat", "umbrella", "scissors", "airplane", "tree", "star", "key")

_TUBES = (
    (1, 0.15, 0.35),
    (0.1, 0.8, 1),
    (0.3, 1, 0.3),
    (1, 0.85, 0.15),
    (0.8, 0.3, 1),
    (1, 0.5, 0.1),
    (0.35, 0.45, 1),
)
_SKIES = (
    ((0.25, 0.12, 0.42), (1.0, 0.6, 0.25)),
    ((0.3, 0.5, 0.85), (0.95, 0.9, 0.8)),
    ((0.85, 0.35, 0.4), (1.0, 0.85, 0.55)),
    ((0.15, 0.4, 0.45), (0.75, 0.92, 0.8)),
    ((0.6, 0.6, 0.65), (0.95, 0.95, 0.95)),
)

Style = Callable[[list[Stroke], np.random.Generator], np.ndarray]


def draw_blueprint(primitives: list[Stroke], rng: np.random.Generator) -> np.ndarray:
    """Draws an object in thin white lines on blue squared paper."""
    blue = np.array([0.06, 0.22, 0.55]) + rng.normal(0, 0.03, 3)
    picture = blue + (fbm(rng, IMAGE_SIZE, 20)[..., None] - 0.5) * 0.1
    ink = np.array([0.8, 0.94, 1.0]) + rng.normal(0, 0.03, 3)
    pitch = int(rng.integers(4, 8))
    for axis in (0, 1):
        ruled = (np.arange(IMAGE_SIZE) + rng.integers(pitch)) % pitch == 0
        paper = ruled[:, None, None] if axis else ruled[None, :, None]
        picture = picture + paper * (ink - picture) * rng.uniform(0.1, 0.22)
    posed = pose(primitives, rng, (25, 38))
    line = contours(posed, rng.uniform(0.6, 1.0)).sum(-1)
    if rng.random() < 0.6:
        _dimension_line(line, posed)
    return picture + (ink - picture) * np.clip(line, 0, 1)[..., None] * rng.uniform(0.85, 1)


def _dimension_line(line: np.ndarray, posed: list[Stroke]) -> None:
    """Adds the width of the object as a draughtsman notes it: a line under it with a tick at each end."""
    points = np.concatenate([points for _, _, _, points in posed])
    left, right = np.clip(points[:, 0], 1, 46)[[points[:, 0].argmin(), points[:, 0].argmax()]].astype(int)
    row = min(int(points[:, 1].max()) + 3, IMAGE_SIZE - 2)
    line[row, left : right + 1] = np.maximum(line[row, left : right + 1], 0.6)
    line[row - 1 : row + 2, [left, right]] = 0.8


def draw_neon(primitives: list[Stroke], rng: np.random.Generator) -> np.ndarray:
    """Draws an object as glowing tubes in the dark, one colour to each of its parts."""
    tubes = np.array(_TUBES)[rng.permutation(len(_TUBES))[:4]]
    if rng.random() < 0.3:
        tubes[:] = tubes[0]
    lines = contours(pose(primitives, rng, (26, 40)), rng.uniform(0.9, 1.4))
    light = lines @ tubes
    glow = Image.fromarray((np.clip(light, 0, 1) * 255).astype(np.uint8))
    near, far = (
        np.asarray(glow.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255
        for radius in (rng.uniform(0.8, 1.2), rng.uniform(3, 6))
    )
    wall = rng.uniform(0, 0.06, 3) + 0.03 * fbm(rng, IMAGE_SIZE, 12)[..., None]
    core = np.clip(lines.sum(-1, keepdims=True) - 0.35, 0, 1) * rng.uniform(0.3, 0.7)
    picture = wall + light * 0.75 + near * rng.uniform(0.6, 1.1) + far * rng.uniform(0.7, 1.5) + core
    return picture + rng.normal(0, 0.015, picture.shape)


def draw_silhouette(primitives: list[Stroke], rng: np.random.Generator) -> np.ndarray:
    """Draws an object black against a bright sky."""
    top, bottom = np.array(_SKIES[rng.integers(len(_SKIES))]) + rng.normal(0, 0.05, (2, 3))
    tilt = rng.uniform(-0.3, 0.3)
    rows, columns = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE] / (IMAGE_SIZE - 1)
    height = np.clip(rows + tilt * (columns - 0.5), 0, 1)[..., None]
    picture = top + (bottom - top) * height
    if rng.random() < 0.4:
        x, y, radius = rng.uniform(0.1, 0.9), rng.uniform(0.2, 0.9), rng.uniform(0.08, 0.18)
        disc = np.clip((radius - np.hypot(columns - x, rows - y)) * 30 + 0.5, 0, 1)[..., None]
        picture = picture + (np.array([1.0, 0.95, 0.8]) - picture) * disc * 0.8
    cover = solid(pose(primitives, rng))[..., None]
    black = rng.uniform(0.0, 0.1, 3)
    picture = picture + (black - picture) * cover
    return picture + rng.normal(0, rng.uniform(0.008, 0.03), picture.shape)


def _paint_photo(class_index: int, rng: np.random.Generator, split: str) -> np.ndarray:
    name = _OBJECTS[class_index]
    return paint_object(known_object(name), rng, NATURAL.get(name))


def _paint_drawn(style: Style, class_index: int, rng: np.random.Generator, split: str) -> np.ndarray:
    return style(known_object(_OBJECTS[class_index]), rng)


def _style_domain(name: str, title: str, own_prompts: tuple[str, ...], paint: Painter) -> Domain:
    prompts = ("a photo of {}", "a picture of {}", *own_prompts)
    return drawn_domain(
        f"style-{name}", title, tuple(with_article(noun) for noun in _OBJECTS), prompts, paint
    )


DOMAINS = (
    _style_domain("photo", "Photo", ("an image of {}",), _paint_photo),
    _style_domain("chalk", "Chalk", ("a chalk drawing of {}",), partial(_paint_drawn, draw_chalk)),
    _style_domain("blueprint", "Blueprint", ("a blueprint of {}",), partial(_paint_drawn, draw_blueprint)),
    _style_domain("neon", "Neon", ("a neon sign of {}",), partial(_paint_drawn, draw_neon)),
    _style_domain(
        "silhouette", "Silhouette", ("a silhouette of {}",), partial(_paint_drawn, draw_silhouette)
    ),
)
