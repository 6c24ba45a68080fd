"""The set of several objects: two or three different ones in a picture that the pretraining never drew.

The embedded stand-in for multi-label sets such as COCO's and VOC's. Pictures are drawn from a seed that no
other pictures use, by the code that draws those of the pretraining.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ..data.captions.captioned import TEST
from ..data.images.pictures import Pictures
from ..data.items import Item
from .captioned_set import fresh_stock
from .concepts import CONCEPTS
from .drawing_code import drawing_code
from .generator import background, photograph, put

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.images.pixels import Pixels

# Every second object: with more classes, compound prompts would be more than images.
CLASSES = tuple(concept for concept in CONCEPTS if concept.kind == "object")[::2]
IMAGES = 600

# No pretraining seed is this large, and the general set and the captions have others.
_SEED = 1_000_037
_THREE = 0.4
_LARGEST = {2: 24, 3: 20}
# Centres of the objects, by how many there are.
_PLACES = {
    2: (((0.27, 0.5), (0.73, 0.5)), ((0.5, 0.27), (0.5, 0.73))),
    3: (((0.25, 0.28), (0.75, 0.28), (0.5, 0.74)), ((0.5, 0.26), (0.25, 0.72), (0.75, 0.72))),
}


class WorldTogether(Pictures):
    """Pictures drawn on demand; every one, with its labels, is a function of its number alone."""

    class_names: Sequence[str] = tuple(concept.name for concept in CLASSES)
    prompts: list[str] | None = None

    @property
    def family(self) -> str:
        """The set."""
        return "World together"

    def items(self, split: str) -> list[Item]:
        """Every image; all are for testing."""
        return [Item(0, str(number)) for number in range(IMAGES)] if split == TEST else []

    def stamp(self, item: Item) -> str:
        """The drawing code, so that no cache outlives a change of it."""
        return drawing_code()

    def labels(self, item: Item) -> tuple[int, ...]:
        """Places of the classes that an image shows; ascending."""
        return shown_in(int(item.key))

    def picture(self, item: Item, pixels: Pixels) -> Tensor:
        """Draw one image; a model of another input size gets it resized like any file."""
        return pixels.drawn(render_together(int(item.key)))


def shown_in(number: int) -> tuple[int, ...]:
    """Places of the classes in picture ``number``; the first one goes round all classes."""
    rng = np.random.default_rng([_SEED, number, 0])
    others = [place for place in range(len(CLASSES)) if place != number % len(CLASSES)]
    more = rng.choice(len(others), 2 if rng.random() < _THREE else 1, replace=False)
    return tuple(sorted([number % len(CLASSES), *(others[place] for place in more)]))


@lru_cache(maxsize=2048)
def render_together(number: int) -> np.ndarray:
    """Picture ``number``, ``48 × 48 × 3`` uint8."""
    rng = np.random.default_rng([_SEED, number, 1])
    stock = fresh_stock(rng)
    image, _, behind = background(rng, stock, 0.6)
    chosen = [CLASSES[place].key for place in shown_in(number)]
    places = _PLACES[len(chosen)][int(rng.integers(2))]
    for place, cell in zip(rng.permutation(len(chosen)), places, strict=True):
        put(rng, image, stock, chosen[place], behind, cell, _LARGEST[len(chosen)])
    return (photograph(rng, image) * 255).astype(np.uint8)
