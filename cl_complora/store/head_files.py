"""The head of every task on the disk, beside what the task added to the weights."""

from __future__ import annotations

from pathlib import Path

from ..clip.heads.head import Head
from ..clip.heads.head_forms import from_tensors, to_tensors
from ..errors import UserError
from .tensors import read_tensors, with_checksum


def save_head(head: Head) -> bytes:
    """The head as the content of a safetensors file."""
    return with_checksum(to_tensors(head), "head")


def load_head(path: Path, width: int | None = None) -> Head:
    """Read a head.

    Args:
        path: of the file.
        width: of the model's features, where it is known.

    Raises:
        UserError: if the file is missing or damaged, or the head of another model.
    """
    try:
        head = from_tensors(read_tensors(path))
        head.check(width)
    except ValueError as error:
        raise UserError(f"{path}: damaged, or the head of another model ({error})") from None
    return head
