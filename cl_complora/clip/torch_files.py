"""Files that torch wrote, read as plain tensors: no object in them is made and none of their code run."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .file_kinds import is_read

# What training scripts put beside the weights and what means no code. In its place stands an empty object of
# ours: neither numpy nor argparse is called.
PASSED_OVER = (
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.numeric._frombuffer",
    "numpy._core.numeric._frombuffer",
    "numpy.ndarray",
    "numpy.dtype",
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "datetime.datetime",
    "datetime.timedelta",
)
# Of a TorchScript archive's data.pkl; that of ViT-L-14 has half a megabyte.
_MAX_PICKLE = 2**28


class PassedOver:
    """Stands where a file has an object that is not loaded."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}


class NotPlain(ValueError):
    """A file with Python objects that are not loaded."""


def load_torch(path: Path) -> Any:
    """Content of what ``torch.save`` wrote; its tensors stay on disk until they are used, where they can.

    Raises:
        NotPlain: naming the object that would have to be made.
        Exception: many kinds, for a damaged file.
    """
    with torch.serialization.safe_globals(_stubs(PASSED_OVER)):
        try:
            if path.suffix == ".safetensors":  # torch goes by this suffix, whatever is in the file
                return torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as error:
            name = re.search(r"GLOBAL (\S+)", str(error)) or re.search(r"[Bb]locked module (\S+)", str(error))
            if name is None:
                raise
            raise NotPlain(name[1]) from None


def load_torchscript(path: Path) -> dict[str, Tensor]:
    """The state_dict of a TorchScript archive, whose code is not looked at.

    An archive keeps its modules as one pickled tree of named tensors; without the code around it, it is a
    file that ``torch.load(weights_only=True)`` reads.

    Raises:
        NotPlain, Exception: as :func:`load_torch`.
    """
    bare = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(bare, "w") as copy:
        for entry in archive.infolist():
            if not is_read(entry.filename):
                continue
            content = archive.read(entry)
            copy.writestr(entry.filename, content)
            if entry.filename.partition("/")[2] == "data.pkl":
                modules = _modules(content)
    bare.seek(0)
    with torch.serialization.safe_globals(_stubs((*modules, *PASSED_OVER))):
        try:
            root = torch.load(bare, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            name = re.search(r"GLOBAL (\S+)", str(error))
            raise NotPlain(name[1] if name else "an object") from None
    return dict(_tensors(root, ""))


def _modules(content: bytes) -> set[str]:
    if len(content) > _MAX_PICKLE:
        raise ValueError(f"its tree of modules has {len(content):,} bytes")
    named = (argument for code, argument, _ in pickletools.genops(content) if code.name == "GLOBAL")
    return {".".join(name.rsplit(" ", 1)) for name in named if name.startswith("__torch__.")}


def _tensors(module: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in getattr(module, "state", {}).items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, PassedOver):
            yield from _tensors(value, f"{prefix}{name}.")


def _stubs(names: Iterable[str]) -> list[type]:
    found = []
    for name in names:
        module, _, leaf = name.rpartition(".")
        found.append(type(leaf, (PassedOver,), {"__module__": module}))
    return found


def quietly(load: Any, path: Path) -> Any:
    """A reader's result without torch's warnings, which speak of files that it then refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load(path)
