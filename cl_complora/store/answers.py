"""What every state of a run answered to every test image: labels and their probabilities, one file a
state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import UserError
from .folder import RunDir
from .tensors import read_tensors, with_checksum


@dataclass(frozen=True)
class Answers:
    """What one state answered on one set, image by image.

    Attributes:
        labels: predicted class, as an index into the set's label space.
        shares: its probability.
    """

    labels: np.ndarray
    shares: np.ndarray

    def highest(self) -> int:
        """The largest label, −1 where there are none."""
        return int(self.labels.max(initial=-1))


def save_answers(found: dict[str, tuple[Tensor, Tensor]]) -> bytes:
    """Predicted labels and their probabilities by set, as the content of a safetensors file."""
    tensors = {f"{name}/label": label.int() for name, (label, _) in found.items()}
    tensors |= {f"{name}/share": share.float() for name, (_, share) in found.items()}
    return with_checksum(tensors, "answers")


def load_answers(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """What :func:`save_answers` stored, or nothing if the file is missing or damaged: it can be measured
    again."""
    try:
        tensors = read_tensors(path)
    except UserError:
        return {}
    names = [key.removesuffix("/label") for key in tensors if key.endswith("/label")]
    return {name: (tensors[f"{name}/label"], tensors[f"{name}/share"]) for name in names}


def answers_of(folder: RunDir, config: dict[str, Any], name: str, state: int) -> Answers:
    """The recorded answers of a state.

    Args:
        folder, config: of the run.
        name: a task or zero-shot set.
        state: counted by the tasks that it has learned (0: the untouched model).

    Raises:
        UserError: if there are none, or the file is damaged.
    """
    task = config["scenario"]["tasks"][state - 1]["name"] if state else "zero-shot"
    path = folder.predictions(state - 1, task)
    if not path.exists():
        raise UserError(f"{folder.root}: this run kept no answers ({path.name} is missing)")
    tensors = read_tensors(path)
    try:
        found = Answers(tensors[f"{name}/label"].numpy(), tensors[f"{name}/share"].numpy())
    except KeyError:
        raise UserError(f"{path}: damaged, or without answers on '{name}'") from None
    if (
        not found.labels.shape == found.shares.shape == (len(found.labels),)
        or found.labels.min(initial=0) < 0
    ):
        raise UserError(f"{path}: the answers on '{name}' are damaged")
    return found
