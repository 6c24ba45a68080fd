"""What a weight file is by its first bytes, whatever it is called; needs no torch."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..errors import printable
from ..files import open_file

Kind = Literal["safetensors", "torch", "torchscript", "numpy"]

_HEAD = 512
# safetensors itself refuses longer headers.
_MAX_HEADER = 100_000_000
# How many times smaller zip makes arrays of weights at most: numbers of bfloat16 in float32, by 2.1.
_MAX_RATIO = 4
# Of a TorchScript archive, what is read beside the numbers.
_RECORDS = ("data.pkl", "version", ".data/version", "byteorder")

_LFS = "is a git-lfs pointer and not the file itself; run 'git lfs pull' where it came from, or download it"
_PAGE = (
    "is a web page (HTML), not weights: the download was answered by a page; fetch the file itself"
    " (on a hub the link with 'resolve', not 'blob') and log in first where it asks for that"
)
_PACKED = "is a packed file ({}); unpack it and give what is in it"
_TEXTS = (
    (b"version https://git-lfs", _LFS),
    (b"<!doctype html", _PAGE),
    (b"<html", _PAGE),
    (b"<?xml", "is an XML text, not weights: most likely what a server answered instead of the file"),
    (
        b"{",
        "is a JSON text, not weights; give the file of weights (of an index of shards, the shards merged into"
        " one file)",
    ),
)
_FOREIGN = (
    (b"\x1f\x8b", _PACKED.format("gzip")),
    (b"BZh", _PACKED.format("bzip2")),
    (b"\xfd7zXZ", _PACKED.format("xz")),
    (b"\x28\xb5\x2f\xfd", _PACKED.format("zstd")),
    (b"7z\xbc\xaf\x27\x1c", _PACKED.format("7z")),
    (b"Rar!", _PACKED.format("rar")),
    (b"GGUF", "is a GGUF file, which open_clip does not read; give its weights as safetensors"),
    (b"\x89HDF", "is an HDF5 file (Keras, TensorFlow); give its weights as safetensors"),
)


class NoCheckpoint(ValueError):
    """A file that is no checkpoint or not a whole one; the message says what it is and what to do."""


def kind_of_file(path: Path) -> Kind:
    """Which reader a weight file is for.

    Raises:
        NoCheckpoint: for a file that is none.
    """
    try:
        with open_file(path) as file:
            head, size = file.read(_HEAD), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise NoCheckpoint(f"it cannot be read: {error.strerror or error}") from None
    if not head:
        raise NoCheckpoint("it is empty or cut off; download or save it again")
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= length <= _MAX_HEADER:
        return "safetensors"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, what in _TEXTS:
        if text.startswith(start):
            raise NoCheckpoint(f"it {what}")
    for start, what in _FOREIGN:
        if head.startswith(start):
            raise NoCheckpoint(f"it {what}")
    if head.startswith(b"PK"):
        return _archive_kind(path, size)
    if head.startswith(b"\x93NUMPY"):
        return "numpy"
    if path.suffix == ".safetensors" and not head.startswith(b"\x80"):
        raise NoCheckpoint("it is no safetensors file, by its first bytes (its header is missing)")
    return "torch"


def _archive_kind(path: Path, size: int) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise NoCheckpoint(
            f"it is cut off: the end of its zip archive is missing ({size:,} bytes are there); download or"
            " save it again",
        ) from None
    names = [entry.filename for entry in entries]
    if names and all(name.endswith(".npy") for name in names):
        return _numpy_kind(entries, size)
    if not any(name.rpartition("/")[2] == "data.pkl" for name in names):
        shown = printable(", ".join(names[:3]) or "nothing", 200)
        raise NoCheckpoint(
            f"it is a zip archive without a checkpoint at its top (it holds {shown}); unpack it"
        )
    script = any(name.rpartition("/")[2] == "constants.pkl" for name in names)
    # What torch writes is neither compressed nor overlapping, but for TorchScript's code, which is not read.
    # What is stored as it is needs no unpacking, whatever sizes the archive states.
    read = [entry for entry in entries if not script or is_read(entry.filename)]
    unpacked = sum(max(entry.file_size, entry.compress_size) for entry in read)
    if unpacked > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in read):
        raise NoCheckpoint(f"it is compressed, as no checkpoint is; unpacked: {unpacked:,} bytes")
    return "torchscript" if script else "torch"


def _numpy_kind(entries: Sequence[zipfile.ZipInfo], size: int) -> Kind:
    """Arrays, which ``savez_compressed`` deflates; of other methods zipfile unpacks a whole piece at once."""
    unpacked = sum(entry.file_size for entry in entries)
    methods = {entry.compress_type for entry in entries}
    if unpacked > _MAX_RATIO * size or methods - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise NoCheckpoint(f"it is compressed as no arrays of weights are; unpacked: {unpacked:,} bytes")
    return "numpy"


def is_read(name: str) -> bool:
    """Whether an entry of a TorchScript archive is read: the weights, and what says how they are written."""
    inside = name.partition("/")[2]
    return inside in _RECORDS or inside.startswith("data/")
