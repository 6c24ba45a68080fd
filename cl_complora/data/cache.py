"""Decoded images on disk: uint8 after resize and crop, memory-mapped, shared by all runs of the machine.

A file holds the test images of one task or zero-shot set, or training images that are few or very many. Its
name is a hash of everything that its content depends on, so it never has to be invalidated: other pictures,
another size or another resize make another file. It is written under a temporary name and renamed, so that
any number of processes may make the same one at once.

The folder is ``pixels`` in ``$CL_COMPLORA_CACHE``, or in ``cl_complora`` in the user's cache folder;
``CL_COMPLORA_CACHE=off`` decodes anew every time. ``answers`` beside it holds what untouched models answered
(:mod:`cl_complora.run.kept_answers`).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_json
from ..version import __version__
from .items import Item, Source

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
        # How images are drawn or decoded may change with the version.
        "version": __version__,
        "source": source.origin,
        "pixels": str(pixels),
        "reading": str(source.reading(items)) if pixels else None,
        "images": [(item.key, item.size, source.stamp(item)) for item in items],
    }
    digest = hashlib.sha256(json.dumps(made_of, ensure_ascii=False).encode()).hexdigest()
    return folder / f"{digest[:32]}{'.npy' if pixels else '.json'}"


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
    """Decode and write a part at a time, so that a set larger than the memory can be made."""
    import numpy as np

    scratch = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".tmp", dir=path.parent)
        scratch = Path(name)
        # Written, not mapped: a full disk is an error in a write and the death of the process in a map.
        with os.fdopen(handle, "wb") as file:
            shape = (len(items), 3, *pixels.size)
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": shape}
            )
            for start in range(0, len(items), PART):
                file.write(source.load(items[start : start + PART], pixels).contiguous().numpy().tobytes())
        scratch.replace(path)
        scratch = None
    except OSError:
        pass
    finally:
        if scratch is not None:
            scratch.unlink(missing_ok=True)


def usage() -> tuple[int, int]:
    """(files, bytes) in the cache."""
    sizes = [path.stat().st_size for path in _files()]
    return len(sizes), sum(sizes)


def clear() -> int:
    """Delete all that is kept; a run that reads some of it now keeps what it has. Returns the number of
    files."""
    files = _files()
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)


def _files() -> list[Path]:
    folders = {part: cache_folder(part) for part in PARTS}
    return [
        path
        for part, folder in folders.items()
        if folder is not None and folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.suffix in PARTS[part]
    ]
