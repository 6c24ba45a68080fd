"""The general zero-shot set: every pretraining concept in renderings that the pretraining never drew.

The embedded stand-in for zero-shot ImageNet. Letters and digits are set in fonts that are held out of the
pretraining; all other pictures come from generators that no pretraining block uses.
"""

from __future__ import annotations

import numpy as np

from .concepts import CONCEPTS
from .generator import Stock, held_out_sprite, photograph, single, whole
from .patterns import pattern
from .scenes import scene

GENERAL_CLASSES: tuple[str, ...] = tuple(concept.name for concept in CONCEPTS)
GENERAL_TEMPLATES: tuple[str, ...] = (
    "a photo of a {}",
    "a picture of a {}",
    "an image of a {}",
    "a drawing of a {}",
)

# No pretraining seed is this large, so no pretraining picture is ever drawn again here.
_SEED = 1_000_003
_stock: list[Stock] = []


def _backgrounds() -> Stock:
    if not _stock:
        _stock.append(Stock.drawn(np.random.default_rng(_SEED), 12, keys=()))
    return _stock[0]


def render_general(class_index: int, sample_index: int) -> np.ndarray:
    """Picture ``sample_index`` of a class: ``48 × 48 × 3`` uint8, a function of the two numbers alone."""
    concept = CONCEPTS[class_index]
    rng = np.random.default_rng([_SEED, class_index, sample_index])
    stock = _backgrounds()
    if concept.kind in ("pattern", "scene"):
        picture = whole(rng, _fresh(rng, concept.kind, concept.key), concept.key)
    else:
        stock.sprites[concept.key] = [held_out_sprite(concept.key, rng)]
        picture = single(rng, stock, concept.key, busy=1.0)
    return (photograph(rng, picture.image) * 255).astype(np.uint8)


def _fresh(rng: np.random.Generator, kind: str, key: str) -> Stock:
    if kind == "pattern":
        return Stock({}, {key: [pattern(key, rng)]}, {})
    return Stock({}, {}, {key: [scene(key, rng)]})
