"""Archives that are packed: what they are, and the command that makes tar files of them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import BinaryIO

# First bytes → what packed it, and what unpacks it.
_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"\x04\x22\x4d\x18": ("lz4", "unlz4"),
}
_ENDS = {".tgz": ".tar", ".tbz": ".tar", ".tbz2": ".tar", ".txz": ".tar", ".tzst": ".tar"}
_PACKED_ENDS = (".gz", ".bz2", ".xz", ".zst", ".lz4")


def how_to_unpack(path: Path, file: BinaryIO) -> str | None:
    """Why a packed archive is not read, and what makes it one that is; None for what is not packed.

    The first bytes decide, not the name.
    """
    first = file.read(8)
    for magic, (packer, unpack) in _PACKED.items():
        if first.startswith(magic):
            to = _unpacked(path)
            return (
                f"is packed with {packer}, and pictures are read by their place in the archive; unpack it"
                f" once ({unpack} < {_word(path)} > {_word(to)}) and name {to.name} instead"
            )
    if first.startswith((b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"Rar!")):
        return "is a zip, 7z or rar archive; shards are tar files: unpack it, then tar -cf shard.tar <folder>"
    return None


def _unpacked(path: Path) -> Path:
    name = path.name
    for packed in _PACKED_ENDS:
        name = name.removesuffix(packed)
    for packed, plain in _ENDS.items():
        name = name.removesuffix(packed) + plain if name.endswith(packed) else name
    name = name if name.endswith(".tar") else f"{name}.tar"
    return path.with_name(name if name != path.name else f"unpacked-{name}")


def _word(path: Path) -> str:
    return shlex.quote(os.fspath(path))
