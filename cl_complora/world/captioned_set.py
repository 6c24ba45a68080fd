"""The captions set: pictures that the pretraining never drew, with the captions that the world writes.

The embedded stand-in for COCO captions. Things alone, in pairs and in groups, patterns and scenes are drawn
from a seed that no pretraining block and no picture of the general set uses, letters and digits in the fonts
that are held out of the pretraining. The captions are the first five different ones that the world writes of
a picture: some say much, some would fit another one as well, as people's do.

Photographic negatives of such pictures are the other set, for tasks of captions: the colours that their
captions name are those before, so that whoever learns to read them may forget what colours look like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ..config.sources import CAPTIONS
from ..data.captions.captioned import TEST, TRAIN
from ..data.images.pictures import Pictures
from ..data.items import Item
from .concepts import CONCEPTS, Concept
from .drawing_code import drawing_code
from .generator import Picture, Stock, held_out_sprite, pair, photograph, several, single, whole
from .patterns import pattern
from .scenes import scene

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.images.pixels import Pixels

IMAGES = 5 * len(CONCEPTS)
TEXTS = 5
"""Captions of a picture, as of COCO's; a scene or a pattern without colours may have fewer."""

# No pretraining seed is this large, and the general set's is another.
_SEED = 1_000_033
# Captions that are written of a picture, and the words that the model's context has room for.
_WRITTEN, _MOST_WORDS = 24, 20
# Of objects and shapes, how often they come as a pair and as a group.
_PAIRS, _GROUPS = 0.3, 0.15


# Where the numbers of a set's pictures begin: no picture is in two of them.
_FIRST = {
    (CAPTIONS, TEST): 0,
    (CAPTIONS, TRAIN): 1_000_000,
    ("negatives", TEST): 2_000_000,
    ("negatives", TRAIN): 3_000_000,
}


class WorldCaptions(Pictures):
    """Pictures drawn on demand; every one, with its captions, is a function of its number alone.

    Args:
        domain: ``captions`` or ``negatives``.
    """

    class_names: Sequence[str] = ()
    prompts: list[str] | None = None

    def __init__(self, domain: str = CAPTIONS) -> None:
        self.domain = domain

    @property
    def family(self) -> str:
        """The set."""
        return f"World {self.domain}"

    def items(self, split: str) -> list[Item]:
        """Every image of ``train`` or ``test``."""
        first = _FIRST.get((self.domain, split))
        return [Item(0, str(first + place)) for place in range(IMAGES)] if first is not None else []

    def stamp(self, item: Item) -> str:
        """The drawing code, so that no cache outlives a change of it."""
        return drawing_code()

    def texts(self, item: Item) -> tuple[str, ...]:
        """The captions of an image."""
        return render_captioned(int(item.key))[1]

    def picture(self, item: Item, pixels: Pixels) -> Tensor:
        """Draw one image; a model of another input size gets it resized like any file."""
        image = render_captioned(int(item.key))[0]
        return pixels.drawn(image if self.domain == CAPTIONS else 255 - image)


@lru_cache(maxsize=2048)
def render_captioned(number: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Picture ``number`` (``48 × 48 × 3`` uint8) and its captions, no two of them alike."""
    rng = np.random.default_rng([_SEED, number])
    picture = _compose(rng, CONCEPTS[number % len(CONCEPTS)])
    image = (photograph(rng, picture.image) * 255).astype(np.uint8)
    written = dict.fromkeys(picture.write(rng) for _ in range(_WRITTEN))
    return image, tuple([text for text in written if len(text.split()) <= _MOST_WORDS][:TEXTS])


def _compose(rng: np.random.Generator, concept: Concept) -> Picture:
    stock = fresh_stock(rng)
    if concept.kind in ("pattern", "scene"):
        return whole(rng, stock, concept.key)
    if concept.kind != "glyph":
        share = rng.random()
        if share < _PAIRS:
            return pair(rng, stock, 1.0)
        if share < _PAIRS + _GROUPS:
            return several(rng, stock, 1.0)
    return single(rng, stock, concept.key, busy=1.0)


class _Drawn(dict):
    """Sprites, patterns or scenes that are drawn when they are asked for."""

    def __init__(
        self, draw: Callable[[str, np.random.Generator], np.ndarray], rng: np.random.Generator
    ) -> None:
        super().__init__()
        self.draw, self.rng = draw, rng

    def __missing__(self, key: str) -> list[np.ndarray]:
        self[key] = [self.draw(key, self.rng)]
        return self[key]


def fresh_stock(rng: np.random.Generator) -> Stock:
    """A stock of which nothing is drawn that the picture does not need."""
    return Stock(*(_Drawn(draw, rng) for draw in (held_out_sprite, pattern, scene)))
