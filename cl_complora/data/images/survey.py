"""Pictures looked at before they are used: which store more than eight bits, and of what range.

The range is one for the whole source, whatever is drawn. It comes from its training pictures: from 100 of
them, spread evenly over their list, or all where there are fewer. Where none of these stores more than eight
bits, 100 test and validation pictures are asked, and then every picture until one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import BinaryIO, TypeVar

from PIL import Image

from .deep import extent, is_deep
from .pixels import MAX_BYTES, formats, hushed, open_picture, quiet
from .value_range import ValueRange

# Pictures decoded for a range.
SAMPLE = 100
# Of the other pictures so many are opened: a file may be called what it is not.
SNIFFED = 16
# Formats with eight bits a channel and no transparency, by suffix.
_PLAIN = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"))

Opener = Callable[[], BinaryIO]
_Entry = TypeVar("_Entry")


@dataclass(frozen=True)
class Taken:
    """What the deep pictures of a set hold.

    Attributes:
        low, high: smallest and largest value.
        whole: the values are integers.
        pictures: how many were decoded.
        part: which they are, ``training`` for instance.
    """

    low: float
    high: float
    whole: bool
    pictures: int
    part: str

    @property
    def values(self) -> ValueRange:
        """The usual range that holds them."""
        return ValueRange.around(self.low, self.high, self.whole)


@dataclass(frozen=True)
class Header:
    """What a file says before its pixels are decoded.

    Attributes:
        deep: more than eight bits a channel.
        transparent: has alpha, or a colour that stands for it; whether any pixel is transparent is not known.
    """

    deep: bool = False
    transparent: bool = False


def spread(entries: Sequence[_Entry], most: int) -> Sequence[_Entry]:
    """At most so many, at even distances."""
    if len(entries) <= most:
        return entries
    return [entries[place * len(entries) // most] for place in range(most)]


def header(opener: Opener) -> Header:
    """Of a file that cannot be read, nothing; whoever loads it tells why."""
    try:
        with opener() as file, quiet(_beginning(file)), Image.open(file, formats=formats()) as image:
            return Header(is_deep(image), image.has_transparency_data)
    except Exception:  # decoders raise whatever a hostile file leads them to
        return Header()


def _beginning(file: BinaryIO) -> bytes:
    beginning = file.read(2)
    file.seek(0)
    return beginning


def _extents(openers: Iterable[Opener], part: str) -> Taken | None:
    found = []
    for opener in openers:
        try:
            with opener() as file:
                content = file.read(MAX_BYTES)
            with open_picture(content) as image:
                low, high, whole = extent(image, content)
        except Exception:  # told by whoever loads it
            continue
        if low <= high:
            found.append((low, high, whole))
    if not found:
        return None
    lows, highs, whole = zip(*found, strict=True)
    return Taken(min(lows), max(highs), all(whole), len(found), part)


def take(train: Sequence[Opener], others: Sequence[Opener], thorough: bool) -> Taken | None:
    """What the deep pictures of a source hold, as the head of this module says.

    Args:
        train, others: its training pictures; those for testing and validation.
        thorough: there is a deep picture, so every one is looked at if need be.
    """
    stages = [(spread(train, SAMPLE), "training"), (spread(others, SAMPLE), "test")]
    stages += [(train, "training"), (others, "test")] if thorough else []
    return next((found for openers, part in stages if (found := taken_of(openers, part))), None)


def taken_of(openers: Sequence[Opener], part: str) -> Taken | None:
    """What the deep ones among some pictures hold, of at most :data:`SAMPLE`; None where there is none.

    Args:
        openers: of the pictures.
        part: which they are.
    """
    with hushed():
        return _extents(spread([opener for opener in openers if header(opener).deep], SAMPLE), part)


def concerned(
    items: Sequence[_Entry], name: Callable[[_Entry], str], stored: Callable[[_Entry], BinaryIO]
) -> Sequence[_Entry]:
    """Those pictures that may be deep or transparent: by suffix, or all where some are called what they are
    not.

    Args:
        items: the pictures.
        name: what the file of one is called.
        stored: opens it.
    """
    plain = [item for item in items if _is_plain(name(item))]
    with hushed():
        sniffed = [header(partial(stored, item)) for item in spread(plain, SNIFFED)]
    if any(found.deep or found.transparent for found in sniffed):
        return items
    return [item for item in items if not _is_plain(name(item))] if plain else items


def _is_plain(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _PLAIN
