"""A finished task's state as safetensors: the delta, and what regularisers and memory carry over."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from avalanche.training.plugins import SupervisedPlugin
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..clip.classifier import ClipClassifier
from ..data.tasks import StreamData, TaskData
from ..delta import TaskDelta
from ..errors import UserError
from ..files import open_file, write_bytes
from ..store.folder import RunDir
from .task_state import CarryingPlugin


def save_delta(delta: TaskDelta) -> bytes:
    """The delta as the content of a safetensors file."""
    return _with_checksum(delta.tensors(), "delta")


def load_delta(path: Path) -> TaskDelta:
    """Read a delta.

    Raises:
        UserError: if the file is missing or damaged.
    """
    try:
        delta = TaskDelta.from_tensors(_read(path))
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


def _with_checksum(tensors: Mapping[str, Tensor], kind: str) -> bytes:
    metadata = {"format": f"cl_complora {kind} 1", "sha256": _checksum(tensors)}
    return safetensors.torch.save(dict(tensors), metadata=metadata)


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and content."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, checked against the checksum in it.

    Raises:
        UserError: if the file is missing or damaged.
    """
    try:
        open_file(path).close()  # a pipe would be waited for
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            known = (file.metadata() or {}).get("sha256")
        if known is not None and known != _checksum(tensors):
            raise ValueError("its content does not have the checksum that it was written with")
        return tensors
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error})") from None


def is_intact(path: Path) -> bool:
    """Whether a delta or state is there as it was written."""
    try:
        _read(path)
    except UserError:
        return False
    return True


def save_answers(found: dict[str, tuple[Tensor, Tensor]]) -> bytes:
    """Predicted labels and their probabilities by set, as the content of a safetensors file."""
    tensors = {f"{name}/label": label.int() for name, (label, _) in found.items()}
    tensors |= {f"{name}/share": share.float() for name, (_, share) in found.items()}
    return _with_checksum(tensors, "answers")


def load_answers(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """What :func:`save_answers` stored, or nothing if the file is missing or damaged: it can be measured
    again."""
    try:
        tensors = _read(path)
    except UserError:
        return {}
    names = [key.removesuffix("/label") for key in tensors if key.endswith("/label")]
    return {name: (tensors[f"{name}/label"], tensors[f"{name}/share"]) for name in names}


def meet_plugins(plugins: Sequence[SupervisedPlugin], model: ClipClassifier, data: StreamData) -> None:
    """Show every plugin the pretrained model and the stream."""
    for plugin in plugins:
        if isinstance(plugin, CarryingPlugin):
            plugin.meet(model, data)


def save_plugins(plugins: Sequence[SupervisedPlugin], folder: RunDir, task: TaskData) -> int:
    """Store what each plugin holds after ``task`` (an empty file says that it holds nothing); bytes of all
    tensors."""
    held = 0
    for position, plugin in enumerate(plugins):
        if isinstance(plugin, CarryingPlugin):
            tensors = {key: value.detach().cpu().contiguous() for key, value in plugin.tensors().items()}
            write_bytes(folder.state(task.index, task.name, position), _with_checksum(tensors, "state"))
            held += sum(value.nbytes for value in tensors.values())
    return held


def restore_plugins(
    plugins: Sequence[SupervisedPlugin], folder: RunDir, done: Sequence[TaskData], device: str
) -> None:
    """Give every plugin what it held after the last finished task."""
    for position, plugin in enumerate(plugins):
        if isinstance(plugin, CarryingPlugin):
            for task in done:
                plugin.remember(task)
            stored = _read(folder.state(done[-1].index, done[-1].name, position))
            plugin.load({key: value.to(device) for key, value in stored.items()})


# States within a task that are kept: the newest, and one more in case that is damaged.
KEPT = 2


def save_inside(folder: RunDir, task: TaskData, step: int, tensors: Mapping[str, Tensor]) -> None:
    """Store a state within a task; its name holds a digest of its content."""
    content = safetensors.torch.save(dict(tensors))
    write_bytes(folder.inside(task.index, task.name, step, _digest(content)), content)
    for old in sorted(folder.inside(task.index, task.name).glob("*.safetensors"))[:-KEPT]:
        old.unlink(missing_ok=True)


def load_inside(folder: RunDir, task: TaskData, tell: Callable[[str], None]) -> dict[str, Tensor] | None:
    """The newest undamaged state within a task, if there is any.

    Args:
        folder: of the run.
        task: that was cut off.
        tell: told of a file that is damaged, and so passed over.
    """
    for path in sorted(folder.inside(task.index, task.name).glob("*.safetensors"), reverse=True):
        try:
            content = path.read_bytes()
            if _digest(content) == path.stem.partition("-")[2]:
                return safetensors.torch.load(content)
        except (OSError, SafetensorError):
            pass
        tell(f"{path}: damaged, and passed over for the state before it")
    return None


def forget_inside(folder: RunDir, index: int, name: str) -> None:
    """Delete the states within a task that is finished."""
    shutil.rmtree(folder.inside(index, name), ignore_errors=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def plugins_intact(plugins: Sequence[SupervisedPlugin], folder: RunDir, index: int, name: str) -> bool:
    """Whether all that plugins held after a task is there as it was written."""
    carrying = [place for place, plugin in enumerate(plugins) if isinstance(plugin, CarryingPlugin)]
    return all(is_intact(folder.state(index, name, place)) for place in carrying)


def forget_plugins(plugins: Sequence[SupervisedPlugin], folder: RunDir, index: int, name: str) -> None:
    """Delete the state after a task; the newest is needed, and the one before it should that be damaged."""
    for position in range(len(plugins)):
        folder.state(index, name, position).unlink(missing_ok=True)
