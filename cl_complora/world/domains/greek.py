"""Eight Greek letters, small and capital, ink on paper. The fonts of the test pictures are none of those in
training."""

from __future__ import annotations

import numpy as np

from ..canvas import IMAGE_SIZE, blend, fbm, glyph
from .domain import drawn_domain

_LETTERS = {
    "gamma": "γΓ",
    "delta": "δΔ",
    "theta": "θΘ",
    "lambda": "λΛ",
    "xi": "ξΞ",
    "sigma": "σΣ",
    "psi": "ψΨ",
    "omega": "ωΩ",
}
FONTS = {
    "train": (
        "DejaVuSans",
        "DejaVuSans-BoldOblique",
        "DejaVuSansMono",
        "DejaVuSerif",
        "STIXGeneral",
        "STIXGeneralBolIta",
    ),
    "test": (
        "DejaVuSans-Bold",
        "DejaVuSansMono-Oblique",
        "DejaVuSerif-BoldItalic",
        "STIXGeneralItalic",
        "STIXGeneralBol",
    ),
}
SIZE = (28, 45)
"""Range of a letter's larger side, in pixels."""
_INKS = ((0.08, 0.08, 0.1), (0.1, 0.15, 0.45), (0.3, 0.17, 0.08), (0.5, 0.08, 0.1), (0.08, 0.3, 0.2))
_PAPERS = ((0.97, 0.97, 0.95), (0.95, 0.9, 0.76), (0.9, 0.84, 0.75), (0.85, 0.87, 0.9), (0.93, 0.86, 0.86))
_CASES = ("small", "capital")
CLASSES = tuple(
    (f"the {case} greek letter {name}", letter)
    for name, letters in _LETTERS.items()
    for case, letter in zip(_CASES, letters, strict=True)
)


def _paint(class_index: int, rng: np.random.Generator, split: str) -> np.ndarray:
    paper = np.array(_PAPERS[rng.integers(len(_PAPERS))]) + rng.normal(0, 0.02, 3)
    stains = fbm(rng, IMAGE_SIZE, rng.uniform(12, 24))[..., None] - 0.5
    picture = (paper + stains * rng.uniform(0.03, 0.2)).astype(np.float32)
    if rng.random() < 0.3:  # Ruled paper.
        pitch, start = rng.integers(7, 12), rng.integers(12)
        picture[start::pitch] -= rng.uniform(0.06, 0.18)
    size = int(rng.integers(*SIZE))
    x, y = rng.integers(0, IMAGE_SIZE - size + 1, 2)
    ink = np.array(_INKS[rng.integers(len(_INKS))]) + rng.normal(0, 0.03, 3)
    letter = glyph(CLASSES[class_index][1], rng, size, FONTS[split])
    blend(picture, letter, np.tile(ink, (4, 1)).astype(np.float32), int(x), int(y))
    return picture * rng.uniform(0.85, 1.05) + rng.normal(0, rng.uniform(0.01, 0.04), picture.shape)


DOMAIN = drawn_domain(
    "greek",
    "Greek letters",
    tuple(name for name, _ in CLASSES),
    ("a photo of {}", "a picture of {}", "an image of {}", "{} in ink on paper"),
    _paint,
)
