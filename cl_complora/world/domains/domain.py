"""What one evaluation domain is, and how its images get their randomness.

Every image is a function of four things alone: the domain's name, the class, the sample and the split.
Each has its own random generator, so any image can be drawn without drawing those before it, on any
machine and in any order, and the training and test splits never share one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

SPLITS = ("train", "test")

Renderer = Callable[[int, int, str], np.ndarray]
Painter = Callable[[int, np.random.Generator, str], np.ndarray]


@dataclass(frozen=True)
class Domain:
    """One family of pictures to learn: its classes, how to name them and how to draw them.

    Attributes:
        name: Key of the domain in the registry.
        title: What to call it in tables and figures.
        class_names: One noun phrase per class, complete with its article where it takes one.
        prompts: Templates with exactly one ``{}``, which takes a class name.
        render: ``(class_index, sample_index, split)`` to an RGB picture, uint8 of shape [48, 48, 3].
        pool: Number of distinct pictures per class and split; ``None`` where there is no end of them.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    prompts: tuple[str, ...]
    render: Renderer
    pool: int | None = None


def check_request(class_count: int, class_index: int, sample_index: int, split: str) -> None:
    """Refuses a request for a picture that the domain does not have.

    Args:
        class_count: Number of classes of the domain.
        class_index: The class asked for.
        sample_index: The sample asked for.
        split: The split asked for.

    Raises:
        ValueError: If the split has no such name.
        IndexError: If there is no such class or sample.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
    if not 0 <= class_index < class_count:
        raise IndexError(f"class {class_index} of {class_count}")
    if sample_index < 0:
        raise IndexError(f"sample {sample_index} is negative")


def image_rng(name: str, class_index: int, sample_index: int, split: str) -> np.random.Generator:
    """Makes the random generator of one picture.

    Args:
        name: Name of the domain.
        class_index: Class of the picture.
        sample_index: Which picture of that class.
        split: ``"train"`` or ``"test"``.

    Returns:
        A generator that no other picture shares.
    """
    return np.random.default_rng([zlib.crc32(name.encode()), SPLITS.index(split), class_index, sample_index])


def _render(
    name: str, class_count: int, paint: Painter, class_index: int, sample_index: int, split: str
) -> np.ndarray:
    check_request(class_count, class_index, sample_index, split)
    picture = paint(class_index, image_rng(name, class_index, sample_index, split), split)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def drawn_domain(
    name: str, title: str, class_names: tuple[str, ...], prompts: tuple[str, ...], paint: Painter
) -> Domain:
    """Makes a domain of pictures drawn by a program, of which there is no end.

    Args:
        name: Key of the domain in the registry.
        title: What to call it in tables and figures.
        class_names: One noun phrase per class.
        prompts: Templates with exactly one ``{}``.
        paint: ``(class_index, rng, split)`` to a float RGB picture in [0, 1]; a function of a module, so
            that the domain can be sent to another process.

    Returns:
        The domain.
    """
    return Domain(name, title, class_names, prompts, partial(_render, name, len(class_names), paint))


def with_article(noun: str) -> str:
    """Puts ``a`` or ``an`` before a noun, unless it is a plural."""
    if noun.endswith("s") and not noun.endswith(("ss", "us")):
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
