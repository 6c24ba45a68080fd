"""Sixteen objects that pretraining knows in colour, as chalk sketches."""

from __future__ import annotations

from functools import cache

import numpy as np

from ..canvas import Stroke, parse
from ..objects import OBJECTS, SHAPES
from .chalk import draw_chalk
from .domain import drawn_domain, with_article

SKETCHED = (
    "house",
    "car",
    "fish",
    "cat",
    "umbrella",
    "scissors",
    "airplane",
    "tree",
    "star",
    "key",
    "bicycle",
    "hat",
    "butterfly",
    "rabbit",
    "cup",
    "heart",
)


@cache
def known_object(name: str) -> list[Stroke]:
    """Looks up how pretraining draws an object or a shape."""
    return parse(OBJECTS[name] if name in OBJECTS else SHAPES[name])


def _paint(class_index: int, rng: np.random.Generator, split: str) -> np.ndarray:
    return draw_chalk(known_object(SKETCHED[class_index]), rng)


DOMAIN = drawn_domain(
    "sketches",
    "Chalk sketches",
    tuple(with_article(name) for name in SKETCHED),
    ("a sketch of {}", "a drawing of {}", "a chalk drawing of {}", "a picture of {} on a blackboard"),
    _paint,
)
