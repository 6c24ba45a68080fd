"""What every state of a run answered to every test image, label and probability, and where it found what a
retrieval set asks for: one file a state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from .arrays import read_arrays
from .folder import RunDir
from .forms import DIRECTIONS, damaged

if TYPE_CHECKING:
    from torch import Tensor


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


# What the queries of a direction of retrieval are called in the file.
_QUERIES = dict(zip(DIRECTIONS, ("image", "text"), strict=True))


def save_answers(
    found: dict[str, tuple[Tensor, Tensor]], ranks: Mapping[str, tuple[Tensor, Tensor]] = MappingProxyType({})
) -> bytes:
    """The content of a safetensors file.

    Args:
        found: set → predicted labels and their probabilities.
        ranks: retrieval set → place of the right answer to every image, and to every text.
    """
    from .tensors import with_checksum

    tensors = {f"{name}/label": label.int() for name, (label, _) in found.items()}
    tensors |= {f"{name}/share": share.float() for name, (_, share) in found.items()}
    for name, both in ranks.items():
        tensors |= {f"{name}/{query}_rank": r.int() for query, r in zip(_QUERIES.values(), both, strict=True)}
    return with_checksum(tensors, "answers")


def load_answers(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """What :func:`save_answers` stored, or nothing if the file is missing or damaged: it can be measured
    again."""
    from .tensors import read_tensors

    try:
        tensors = read_tensors(path)
    except UserError:
        return {}
    names = [key.removesuffix("/label") for key in tensors if key.endswith("/label")]
    return {name: (tensors[f"{name}/label"], tensors[f"{name}/share"]) for name in names}


def load_ranks(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """As :func:`load_answers`, the ranks of retrieval sets."""
    from .tensors import read_tensors

    try:
        tensors = read_tensors(path)
    except UserError:
        return {}
    names = [key.removesuffix("/image_rank") for key in tensors if key.endswith("/image_rank")]
    keys = {name: [f"{name}/{query}_rank" for query in _QUERIES.values()] for name in names}
    return {name: (tensors[one], tensors[other]) for name, (one, other) in keys.items() if other in tensors}


def ranks_of(folder: RunDir, config: dict[str, Any], name: str, direction: str, state: int) -> np.ndarray:
    """Where a state found the right answer to every query of a retrieval set, counted from 1.

    Args:
        folder, config, state: as for :func:`answers_of`.
        name: a retrieval set.
        direction: ``image_to_text`` or ``text_to_image``.

    Raises:
        UserError: as :func:`answers_of`.
    """
    path, arrays = _recorded(folder, config, state)
    found = arrays.get(f"{name}/{_QUERIES[direction]}_rank")
    if found is None or found.ndim != 1 or not len(found) or found.dtype.kind == "f" or found.min() < 1:
        raise UserError(f"{path}: damaged, or without the ranks on '{name}'")
    return found


def answers_of(folder: RunDir, config: dict[str, Any], name: str, state: int) -> Answers:
    """The recorded answers of a state.

    Args:
        folder, config: of the run.
        name: a task or zero-shot set.
        state: counted by the tasks that it has learned (0: the untouched model).

    Raises:
        UserError: if there are none, or the file is damaged.
    """
    path, arrays = _recorded(folder, config, state)
    try:
        found = Answers(arrays[f"{name}/label"], arrays[f"{name}/share"])
    except KeyError:
        raise UserError(f"{path}: damaged, or without answers on '{name}'") from None
    if (
        not found.labels.shape == found.shares.shape == (len(found.labels),)
        or found.labels.min(initial=0) < 0
    ):
        raise UserError(f"{path}: the answers on '{name}' are damaged")
    return found


def _recorded(folder: RunDir, config: dict[str, Any], state: int) -> tuple[Path, dict[str, np.ndarray]]:
    try:
        task = config["scenario"]["tasks"][state - 1]["name"] if state else "zero-shot"
    except (LookupError, TypeError):
        raise damaged(folder.config, f"scenario.tasks: names no task {state}") from None
    path = folder.predictions(state - 1, task)
    if not path.exists():
        raise UserError(f"{folder.root}: this run kept no answers ({path.name} is missing)")
    return path, read_arrays(path)
