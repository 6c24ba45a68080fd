"""Tensors on the disk: safetensors with a checksum of their content, read back without trust."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UserError
from ..files import open_file
from .arrays import checked


def with_checksum(
    tensors: Mapping[str, Tensor], kind: str, told: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    """Tensors as the content of a safetensors file that names its kind and holds a checksum.

    Args:
        tensors: what is stored.
        kind: of the file.
        told: what else it says of them, outside the checksum.
    """
    metadata = {**told, "format": f"cl_complora {kind} 1", "sha256": digest_of(tensors)}
    return safetensors.torch.save(dict(tensors), metadata=metadata)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and content."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, checked against the checksum in it.

    Raises:
        UserError: if the file is missing or damaged.
    """
    try:
        # Arithmetic may go another way where numbers are not aligned, as those of a file seldom are; the same
        # bits must follow from what was read and what was computed.
        return {name: value.clone() for name, value in checked(path, "pt", digest_of).items()}
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error})") from None


def told_with(path: Path) -> dict[str, str]:
    """What a file of tensors says beside them: its format, their checksum, and what it was given to say.

    Raises:
        UserError: if the file is missing or damaged.
    """
    try:
        open_file(path).close()
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error})") from None


def is_intact(path: Path) -> bool:
    """Whether a file of tensors is there as it was written."""
    try:
        read_tensors(path)
    except UserError:
        return False
    return True
