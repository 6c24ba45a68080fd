"""Pictures looked at before they are used: which store more than eight bits, and of what range.

The range is one for the whole source, whatever is drawn. It comes from its training pictures: from 200 of
them, spread evenly over their list, or all where there are fewer. Where none of these stores more than eight
bits, 200 test and validation pictures are asked, and then every picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, TypeVar

from PIL import Image

from ..files import write_json
from .cache import cache_folder, file_of
from .deep import extent, is_deep
from .items import Item, Source
from .pixels import MAX_BYTES, formats, open_picture, quiet
from .value_range import ValueRange

# Pictures decoded for a range.
SAMPLE = 200
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
        with opener() as file, quiet(b"II"), Image.open(file, formats=formats()) as image:
            return Header(is_deep(image), image.has_transparency_data)
    except Exception:  # decoders raise whatever a hostile file leads them to
        return Header()


def extents(openers: Iterable[Opener], part: str) -> Taken | None:
    """What the deep ones among some pictures hold; None where there is none."""
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


def take(source: Source, thorough: bool) -> Taken | None:
    """What the deep pictures of a source hold, as the head of this module says.

    What was found is kept beside the decoded images.

    Args:
        source: of separate files.
        thorough: there is a deep picture, so every one is looked at if need be.
    """
    train = files(source.items("train"))
    others = [item for split in ("test", "validation") for item in files(source.items(split))]
    stages = [(spread(train, SAMPLE), "training"), (spread(others, SAMPLE), "test")]
    stages += [(train, "training"), (others, "test")] if thorough else []
    for items, part in stages:
        found = _kept(source, items, part)
        if found is not None:
            return found
    return None


def _kept(source: Source, items: Sequence[Item], part: str) -> Taken | None:
    folder = cache_folder()
    file = file_of(source, items, None, folder, "range") if folder is not None and items else None
    if file is not None:
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
            return Taken(**known) if known else None
        except (OSError, ValueError, TypeError):
            pass
    openers = [opener_of(source, item) for item in items]
    deep = [opener for opener in openers if header(opener).deep]
    found = extents(spread(deep, SAMPLE), part)
    if file is not None:
        try:
            write_json(file, asdict(found) if found else {})
        except OSError:  # a cache that cannot be written is done without
            pass
    return found


def concerned(source: Source, items: Sequence[Item]) -> Sequence[Item]:
    """Those pictures that may be deep or transparent: by suffix, or all where some are called what they are
    not."""
    present = files(items)
    plain = [item for item in present if _is_plain(item)]
    for item in spread(plain, SNIFFED):
        found = header(opener_of(source, item))
        if found.deep or found.transparent:
            return present
    return [item for item in present if not _is_plain(item)]


def files(items: Sequence[Item]) -> list[Item]:
    """Those that are files, and neither drawn nor part of an array."""
    return [item for item in items if item.size is not None]


def _is_plain(item: Item) -> bool:
    return PurePosixPath(item.key).suffix.lower() in _PLAIN


def opener_of(source: Source, item: Item) -> Opener:
    """What opens the file of a picture."""
    return lambda: source.stored(item)


def taken_of(paths: Sequence[Opener]) -> Taken | None:
    """What the deep ones among pictures of no source hold."""
    deep = [opener for opener in paths if header(opener).deep]
    return extents(spread(deep, SAMPLE), "given")
