"""The vocabulary of the pretraining: every concept, what kind it is, and how captions call it."""

from __future__ import annotations

from dataclasses import dataclass

from .objects import OBJECTS, SHAPES
from .patterns import PATTERNS
from .scenes import SCENES

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

PATTERN_NAMES = {
    "stripes": "striped pattern",
    "checkerboard": "checkered pattern",
    "polka dots": "dotted pattern",
    "grid": "grid pattern",
    "zigzag": "zigzag pattern",
    "waves": "wavy pattern",
    "static noise": "static noise",
    "gradient": "color gradient",
    "rings": "ring pattern",
    "clouds": "cloudy pattern",
    "spiral": "spiral pattern",
    "rays": "ray pattern",
}

PLURALS = {
    "butterfly": "butterflies",
    "cherry": "cherries",
    "strawberry": "strawberries",
    "fish": "fish",
    "leaf": "leaves",
    "scissors": "scissors",
    "glasses": "glasses",
    "grapes": "grapes",
    "bus": "buses",
    "cactus": "cacti",
    "person": "people",
    "cross": "crosses",
    "lightning": "lightning bolts",
}


@dataclass(frozen=True)
class Concept:
    """One thing that the world can show.

    Attributes:
        name: as captions and prompts call it.
        kind: ``object``, ``shape``, ``glyph``, ``pattern`` or ``scene``.
        key: what the drawing code calls it (a character for a glyph).
    """

    name: str
    kind: str
    key: str


CONCEPTS: tuple[Concept, ...] = (
    *(Concept(name, "object", name) for name in OBJECTS),
    *(Concept(name, "shape", name) for name in SHAPES),
    *(Concept(PATTERN_NAMES[name], "pattern", name) for name in PATTERNS),
    *(Concept(name, "scene", name) for name in SCENES),
    *(Concept(f"letter {character.lower()}", "glyph", character) for character in LETTERS),
    *(Concept(f"digit {word}", "glyph", str(value)) for value, word in enumerate(DIGIT_WORDS)),
)
INDEX = {concept.key: index for index, concept in enumerate(CONCEPTS)}


def plural(name: str) -> str:
    """More than one of it."""
    return PLURALS.get(name, name + "s")


def article(phrase: str) -> str:
    """``a`` or ``an``."""
    return "an" if phrase[0] in "aeiou" and not phrase.startswith("uni") else "a"
