"""Files of tensors read with their checksum, as arrays too, by who has not loaded torch and need not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import UserError
from ..files import open_file

Named = TypeVar("Named")


def checked(
    path: Path, framework: Literal["np", "pt"], digest: Callable[[dict[str, Named]], str]
) -> dict[str, Named]:
    """What a safetensors file holds, as a framework's tensors.

    Args:
        digest: gives the checksum of what is held.

    Raises:
        OSError, SafetensorError, ValueError: if the file is missing or damaged.
    """
    open_file(path).close()  # a pipe would be waited for
    with safe_open(path, framework) as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        known = (file.metadata() or {}).get("sha256")
    if known is not None and known != digest(held):
        raise ValueError("its content does not have the checksum that it was written with")
    return held


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a file that :func:`~cl_complora.store.tensors.with_checksum` wrote.

    Raises:
        UserError: if the file is missing or damaged, or holds what NumPy has no type for.
    """
    try:
        return checked(path, "np", _digest_of)
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error})") from None


def _digest_of(arrays: Mapping[str, np.ndarray]) -> str:
    """As :func:`~cl_complora.store.tensors.digest_of`, which names types as torch does."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = arrays[name]
        digest.update(f"{name} torch.{value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
