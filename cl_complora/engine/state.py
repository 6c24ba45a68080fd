"""A finished task's state as safetensors: the delta, and what regularisers and memory carry over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
from avalanche.training.plugins import SupervisedPlugin
from safetensors import SafetensorError

from ..data.stream import TaskData
from ..errors import UserError
from ..files import slug, write_bytes
from ..lowrank import TaskDelta
from ..rundir import RunDir
from .regularisers import LwfPlugin, RegulariserPlugin
from .replay import ReplayPlugin


def save_delta(delta: TaskDelta) -> bytes:
    """The delta as the content of a safetensors file."""
    return safetensors.torch.save(delta.tensors(), metadata={"format": "cl_complora delta 1"})


def load_delta(path: Path) -> TaskDelta:
    """Read a delta.

    Raises:
        UserError: if the file is missing or damaged.
    """
    return TaskDelta.from_tensors(_read(path))


def _read(path: Path) -> dict:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); use --fresh to start this run over") from None


def _path(folder: RunDir, task: TaskData, position: int) -> Path:
    return folder.root / "state" / f"{task.index + 1:03d}-{slug(task.name)}.plugin{position}.safetensors"


def save_plugins(plugins: Sequence[SupervisedPlugin], folder: RunDir, task: TaskData) -> None:
    """Store what each regulariser holds after ``task``."""
    for position, plugin in enumerate(plugins):
        if isinstance(plugin, RegulariserPlugin):
            tensors = {key: value.detach().cpu().contiguous() for key, value in plugin.tensors().items()}
            if tensors:
                write_bytes(_path(folder, task, position), safetensors.torch.save(tensors))


def restore_plugins(plugins: Sequence[SupervisedPlugin], folder: RunDir, done: Sequence[TaskData], device: str) -> None:
    """Give every plugin what it held after the last finished task."""
    for position, plugin in enumerate(plugins):
        if isinstance(plugin, RegulariserPlugin):
            path = _path(folder, done[-1], position)
            if path.exists():
                plugin.load({key: value.to(device) for key, value in _read(path).items()})
        # Label spaces and memories follow from the tasks themselves.
        for task in done:
            if isinstance(plugin, LwfPlugin):
                plugin.remember([task.train_space])
            elif isinstance(plugin, ReplayPlugin):
                plugin.remember(task)
