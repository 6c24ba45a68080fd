"""What people write under loose pictures: often the right word, often a fixed wrong one, sometimes hardly
any.

Independent label noise does not keep a contrast loose, since it averages out; a *false friend*, one other
class whose word a picture is often given, does. Friends form a cycle (a → b → c → a) within the family, so
that every word keeps a distribution of its own and no two words become synonyms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..captions import FRAMES
from ..domains import DOMAINS

FAMILIES = ("textures", "digits", "sketches", "flags", "objects", "aerial", "greek")
"""The stream's families, each of which has loose pictures."""

_ONLY = {
    "textures": ("a pattern", "a close-up of a surface"),
    "digits": ("a handwritten digit", "a digit"),
    "sketches": ("a sketch", "a drawing"),
    "flags": ("a flag", "a flag in the wind"),
    "objects": ("an object", "some object"),
    "aerial": ("an aerial photo", "land seen from above"),
    "greek": ("a greek letter", "a letter in ink on paper"),
}
_FRAMES = {
    "sketches": ("a sketch of {}", "a chalk drawing of {}"),
    "aerial": ("an aerial photo of {}", "{} from above", "a satellite photo of {}"),
    "greek": ("{} in ink on paper",),
    "flags": ("{} in the wind",),
    "textures": ("a close-up of {}",),
}
PHRASES = tuple(text for texts in (*_ONLY.values(), *_FRAMES.values()) for text in texts)


@dataclass(frozen=True)
class Reading:
    """How loosely captions fit their pictures; what is left of 1 names any other class of the family.

    Attributes:
        right: probability of the class's own word.
        friend: of the false friend's word.
        only: of the family's name alone.
    """

    right: float = 0.45
    friend: float = 0.30
    only: float = 0.15

    def __post_init__(self) -> None:
        if min(self.right, self.friend, self.only) < 0 or self.right + self.friend + self.only > 1:
            raise ValueError(f"probabilities that are no shares of 1: {self}")

    def word(self, family: str, label: int, rng: np.random.Generator) -> int | None:
        """Class whose word a picture of ``label`` is given; None for the family's name alone."""
        classes, draw = len(DOMAINS[family].class_names), rng.random()
        if draw < self.right:
            return label
        if draw < self.right + self.friend:
            return (label + 1) % classes
        if draw < self.right + self.friend + self.only:
            return None
        others = [c for c in range(classes) if c not in (label, (label + 1) % classes)]
        return others[rng.integers(len(others))]

    def caption(self, family: str, label: int, rng: np.random.Generator) -> str:
        """Text under one picture."""
        word = self.word(family, label, rng)
        if word is None:
            phrases = _ONLY[family]
            return phrases[rng.integers(len(phrases))]
        frames = (*FRAMES, *_FRAMES.get(family, ()) * 3)
        return frames[rng.integers(len(frames))].format(DOMAINS[family].class_names[word])
