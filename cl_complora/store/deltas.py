"""What every task added to the weights, on the disk: factors, rows or whole tensors as safetensors."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..delta import TaskDelta
from ..errors import UserError
from .tensors import read_tensors, with_checksum


def save_delta(delta: TaskDelta) -> bytes:
    """The delta as the content of a safetensors file."""
    return with_checksum(delta.tensors(), "delta")


def load_delta(path: Path) -> TaskDelta:
    """Read a delta.

    Raises:
        UserError: if the file is missing or damaged.
    """
    try:
        delta = TaskDelta.from_tensors(read_tensors(path))
        delta.check()
    except ValueError as error:
        raise UserError(f"{path}: damaged, or the delta of another model ({error})") from None
    return delta


def merge_delta(path: Path, parameters: dict[str, Tensor], scale: float = 1.0) -> None:
    """Read a delta and add it in place to the named tensors.

    Raises:
        UserError: if the file is missing or damaged, or does not fit these tensors.
    """
    try:
        load_delta(path).add_to(parameters, scale)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: damaged, or the delta of another model ({error.args[0]})") from None
