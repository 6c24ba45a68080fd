"""Decoded images on disk: uint8 after resize and crop, memory-mapped, shared by all runs of the machine.

A file holds the test images of one task or zero-shot set, or training images that are few or very many. Its
name is a hash of everything that its content depends on, so it never has to be invalidated: other pictures,
another size or another resize make another file. It is written under a temporary name and renamed, so that
any number of processes may make the same one at once; what one that was killed has left goes when the next
file is made.

The folder is ``pixels`` in ``$CL_COMPLORA_CACHE``, or in ``cl_complora`` in the user's cache folder;
``CL_COMPLORA_CACHE=off`` decodes anew every time. ``answers`` beside it holds what untouched models answered
(:mod:`cl_complora.run.kept_answers`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL

from ...files import is_left, temporary_beside, write_json
from ...version import __version__
from ..items import Item, Source

if TYPE_CHECKING:
    from torch import Tensor

    from .pixels import Pixels

OFF = "off"
# What is kept: part of the folder → endings of its files.
PARTS = {"pixels": (".npy", ".json"), "answers": (".safetensors",)}
# Images decoded at a time.
PART = 512


def cache_folder(part: str = "pixels") -> Path | None:
    """Where decoded images, or another of ``PARTS``, are kept; None where nothing is."""
    named = os.environ.get("CL_COMPLORA_CACHE")
    if named == OFF:
        return None
    base = named or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "cl_complora")
    try:
        return Path(base).expanduser() / part
    except RuntimeError:  # a user without a home
        return None


def size(items: Sequence[Item], pixels: Pixels) -> int:
    """Bytes that these images take decoded."""
    height, width = pixels.size
    return len(items) * 3 * height * width


def file_of(source: Source, items: Sequence[Item], pixels: Pixels | None, folder: Path) -> Path:
    """The cache file of these images decoded, or, for no pixels, of the list of those that cannot be."""
    made_of = {
        # How images are drawn or decoded may change with the versions.
        "version": [__version__, PIL.__version__],
        "source": source.origin,
        "pixels": str(pixels),
        "reading": str(source.reading(items)) if pixels else _readable(source),
        "images": [(item.key, item.size, source.stamp(item)) for item in items],
    }
    told = json.dumps(made_of, ensure_ascii=False).encode("utf-8", "surrogatepass")  # folders may not be text
    digest = hashlib.sha256(told).hexdigest()
    return folder / f"{digest[:32]}{'.npy' if pixels else '.json'}"


def _readable(source: Source) -> list[Any]:
    """What, beside the files, it depends on which of them can be read, and how what is said of them calls
    them."""
    from .pixels import formats

    return [*formats(), str(getattr(source, "range", None)), str(getattr(source, "root", ""))]


def load_cached(source: Source, items: Sequence[Item], pixels: Pixels) -> Tensor:
    """As ``source.load``, from the cache where it has the images, which otherwise it gets.

    A cache that cannot be written (a full disk, no permission) is done without.
    """
    folder = cache_folder()
    if folder is None:
        return source.load(items, pixels)
    path = file_of(source, items, pixels, folder)
    found = _mapped(path, len(items), pixels)
    if found is not None:
        return found
    _make(path, source, items, pixels)
    found = _mapped(path, len(items), pixels)
    return source.load(items, pixels) if found is None else found


def keep_json(file: Path | None, content: Any) -> None:
    """Write what need not be found out again; a cache that is off or cannot be written is done without."""
    if file is not None:
        with suppress(OSError):
            write_json(file, content)


def load_part(source: Source, items: Sequence[Item], pixels: Pixels, start: int, stop: int) -> Tensor:
    """``load_cached(source, items, pixels)[start:stop]``, without decoding any other image."""
    folder = cache_folder()
    if folder is not None:
        whole = _mapped(file_of(source, items, pixels, folder), len(items), pixels)
        if whole is not None:
            return whole[start:stop]
    return load_cached(source, items[start:stop], pixels)


def _mapped(path: Path, count: int, pixels: Pixels) -> Tensor | None:
    import warnings

    import numpy as np
    import torch

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if array.dtype != np.uint8 or array.shape != (count, 3, *pixels.size):
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)  # nothing writes to them


def _make(path: Path, source: Source, items: Sequence[Item], pixels: Pixels) -> None:
    """Decode and write a part at a time, so that a set larger than the memory can be made; in the order in
    which images are stored, so that no part of a table is read twice."""
    import numpy as np

    order = sorted(range(len(items)), key=lambda place: items[place].order)
    scratch = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        # Written, not mapped: a full disk is an error in a write and the death of the process in a map.
        with scratch.open("xb") as file:
            shape = (len(items), 3, *pixels.size)
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": shape}
            )
            begin, each = file.tell(), size(items[:1], pixels)
            for start in range(0, len(items), PART):
                places = order[start : start + PART]
                decoded = source.load([items[place] for place in places], pixels)
                for place, picture in zip(places, decoded, strict=True):
                    file.seek(begin + place * each)
                    file.write(picture.contiguous().numpy().tobytes())
        scratch.replace(path)
    except OSError:
        pass
    finally:
        with suppress(OSError):
            scratch.unlink()


def _remove_leftovers(folder: Path) -> None:
    """Remove what nobody writes any more."""
    for leftover in folder.glob(".*.tmp"):
        with suppress(OSError):  # it was written meanwhile, or is another user's
            if is_left(leftover):
                leftover.unlink()


def usage() -> tuple[int, int]:
    """(files, bytes) in the cache."""
    sizes = []
    for path in _files():
        with suppress(FileNotFoundError):  # it was being written, and has its own name now
            sizes.append(path.stat().st_size)
    return len(sizes), sum(sizes)


def clear() -> int:
    """Delete all that is kept; a run that reads or makes some of it now keeps what it has. Returns the number
    of files."""
    deleted = 0
    for path in _files():
        with suppress(FileNotFoundError):
            if path.suffix != ".tmp" or is_left(path):
                path.unlink()
                deleted += 1
    return deleted


def _files() -> list[Path]:
    folders = {part: cache_folder(part) for part in PARTS}
    return [
        path
        for part, folder in folders.items()
        if folder is not None and folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.suffix in (*PARTS[part], ".tmp")
    ]
