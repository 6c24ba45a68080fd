"""Captions of the pretraining's pictures: what people might write under them, more or less precisely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .concepts import article, plural
from .patterns import TEXTURES

FRAMES = (
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a drawing of {}",
    "an illustration of {}",
    "{}",
    "this is {}",
    "there is {}",
    "an icon of {}",
    "a painting of {}",
    "we see {}",
    "a cropped photo of {}",
    "a blurry photo of {}",
    "a bright photo of {}",
    "a close-up photo of {}",
    "a photo of {}",
    "a good photo of {}",
    "a rendering of {}",
)
_COUNTS = {2: "two", 3: "three", 4: "four", 5: "five"}
_NO_ARTICLE = ("scissors", "glasses", "lightning", "grapes", "rain", "snow", "static noise")


@dataclass(frozen=True)
class Thing:
    """What was painted: name, main colour, texture with its second colour, size in pixels, centre in 0..1."""

    name: str
    colour: str
    texture: str
    stripe: str
    size: int
    centre: tuple[float, float]


def _pick(rng: np.random.Generator, options):
    return options[rng.integers(len(options))]


def _with_article(rng: np.random.Generator, phrase: str, name: str) -> str:
    if name in _NO_ARTICLE and rng.random() < 0.6:
        return phrase
    draw = rng.random()
    if draw < 0.8:
        # The plain "a" that prompt templates put before every name is part of the language, too.
        return f"{article(phrase) if rng.random() < 0.6 else 'a'} {phrase}"
    return f"the {phrase}" if draw < 0.9 else phrase


def describe(rng: np.random.Generator, thing: Thing) -> str:
    """Noun phrase with some of the attributes."""
    words = []
    if rng.random() < 0.12:
        words.append("small" if thing.size < 30 else "large" if thing.size > 40 else "medium")
    if rng.random() < 0.35:
        if thing.texture and rng.random() < 0.7:
            words.append(TEXTURES[thing.texture])
        words.append(
            f"{thing.colour} and {thing.stripe}" if thing.texture and rng.random() < 0.5 else thing.colour
        )
    return _with_article(rng, " ".join([*words, thing.name]), thing.name)


def _frame(rng: np.random.Generator, phrase: str, background: str, chance: float) -> str:
    text = _pick(rng, FRAMES).format(phrase)
    if background and rng.random() < chance:
        text += f" {_pick(rng, ('on', 'in front of', 'with'))} {article(background)} {background}"
    return text


def _where(thing: Thing) -> str:
    x, y = thing.centre
    across = "left" if x < 0.4 else "right" if x > 0.6 else ""
    down = "upper" if y < 0.4 else "lower" if y > 0.6 else ""
    if across and down:
        return f"in the {down} {across}"
    if across:
        return f"on the {across}"
    return {"upper": "at the top", "lower": "at the bottom", "": "in the center"}[down]


def caption_single(rng: np.random.Generator, thing: Thing, background: str) -> str:
    """One thing on a background."""
    text = _frame(rng, describe(rng, thing), background, 0.3)
    return f"{text} {_where(thing)}" if rng.random() < 0.1 else text


def caption_pair(rng: np.random.Generator, first: Thing, second: Thing, side: bool, background: str) -> str:
    """Two things beside or above each other."""
    if rng.random() < 0.5:
        joint = f"{describe(rng, first)} and {describe(rng, second)}"
    elif side:
        joint = f"{describe(rng, first)} to the left of {describe(rng, second)}"
    else:
        joint = f"{describe(rng, first)} above {describe(rng, second)}"
    return _frame(rng, joint, background, 0.15)


def caption_several(rng: np.random.Generator, thing: Thing, count: int, background: str) -> str:
    """The same thing several times."""
    number = _COUNTS[count] if rng.random() < 0.75 else "some"
    words = [number] + ([thing.colour] if rng.random() < 0.4 else []) + [plural(thing.name)]
    return _frame(rng, " ".join(words), background, 0.2)


def caption_whole(rng: np.random.Generator, name: str, colours: tuple[str, ...]) -> str:
    """A pattern (with its colours) or a scene."""
    phrase = f"{' and '.join(colours)} {name}" if colours and rng.random() < 0.4 else name
    return _frame(rng, _with_article(rng, phrase, name), "", 0)
