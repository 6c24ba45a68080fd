"""Tar archives listed without being trusted: no name, no size and no header is believed before it is
checked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
# Bytes of a header that holds a name longer than a hundred characters.
MAX_HEADER = 16_384


class Damaged(Exception):
    """An archive that is no tar, or not a whole one."""


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        name: as it stands there; nothing is ever written under it.
        start: of its content, in bytes.
        size: of its content, in bytes.
    """

    name: str
    start: int
    size: int


def members(file: BinaryIO) -> Iterator[Member]:
    """The plain files of a tar archive in their order; folders, links, devices and pipes are passed over.

    ``tarfile`` goes round in circles on a negative size (before Python 3.11.14), reads headers of any size
    into the memory, and takes a damaged header for the end of the archive.

    Raises:
        Damaged: where a header is broken or something is cut off.
    """
    end = os.fstat(file.fileno()).st_size
    place, given = 0, {}
    while True:
        file.seek(place)
        header = file.read(BLOCK)
        if header == bytes(BLOCK):
            return
        if len(header) < BLOCK:
            raise Damaged(f"cut off at byte {end:,}")
        if not _sums_up(header):
            raise Damaged(f"no header of a tar archive at byte {place:,}")
        kind, start = header[156:157], place + BLOCK
        size = int(given.get("size") or _number(header[124:136]))
        if (
            kind in b"123456"
        ):  # links, devices, folders, pipes: whatever size they state, they have no content
            size = 0
        if size > end - start:
            raise Damaged(f"cut off within what begins at byte {place:,}")
        if kind in b"xL":
            if size > MAX_HEADER:
                raise Damaged(f"a header of {size:,} bytes at byte {place:,}")
            given |= _extended(kind, file.read(size), place)
        elif kind == b"S" or "sparse" in given:
            raise Damaged(f"a sparse file at byte {place:,}, which is not read")
        elif (
            kind not in b"Kg"
        ):  # the long name of a link, settings for all: neither ends what was given for a file
            if kind in b"0\x007":
                yield Member(given.get("path") or _short_name(header, place), start, size)
            given = {}
        place = start + -(-size // BLOCK) * BLOCK


def _sums_up(header: bytes) -> bool:
    try:
        return sum(header) - sum(header[148:156]) + 8 * ord(" ") == _number(header[148:156])
    except Damaged:
        return False


def _number(field: bytes) -> int:
    """A number in octal digits, or in base 256 where it has more of them than fit."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if not re.fullmatch(b"[0-7]*", digits):  # int takes a sign, too, and a size below zero leads back
        raise Damaged(f"{field!r} where a number should be")
    return int(digits or b"0", 8)


def _short_name(header: bytes, place: int) -> str:
    parts = [header[345:500], header[:100]] if header[257:263] == b"ustar\0" else [header[:100]]
    return _text(b"/".join(filter(None, (part.partition(b"\0")[0] for part in parts))), place)


def _extended(kind: bytes, content: bytes, place: int) -> dict[str, str]:
    """What a header says that stands before another one: a long name alone (GNU), or ``<length> key=value``
    (POSIX)."""
    if kind == b"L":
        return {"path": _text(content.partition(b"\0")[0], place)}
    found = {}
    while content:
        length, space, _ = content.partition(b" ")
        if not (space and length.isdigit() and len(length) < 6 and len(length) < int(length) <= len(content)):
            raise Damaged(f"a broken header at byte {place:,}")
        key, _, value = content[len(length) + 1 : int(length) - 1].partition(b"=")
        content = content[int(length) :]
        if key in (b"path", b"size"):
            found[key.decode()] = _text(value, place)
        elif key.startswith(b"GNU.sparse."):
            found["sparse"] = ""
    if not re.fullmatch("[0-9]{1,20}", found.get("size", "0")):
        raise Damaged(f"a broken header at byte {place:,}")
    return found


def _text(name: bytes, place: int) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise Damaged(f"a name at byte {place:,} that is not UTF-8") from None
