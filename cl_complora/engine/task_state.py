"""Plugins that carry something from one task to the next, and how a resumed run gives it back to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor

from ..clip.classifier import ClipClassifier
from ..data.tasks import StreamData, TaskData
from ..files import write_bytes
from ..store.folder import RunDir
from ..store.tensors import is_intact, read_tensors, with_checksum

_WANTED = "a dict of tensors"


class WrongAnswer(TypeError):
    """A method of a plugin returned what nothing can be done with.

    Args:
        plugin: whose.
        method: its name.
        wanted: what it must return.
        got: what it did.
    """

    def __init__(self, plugin: object, method: str, wanted: str, got: str) -> None:
        super().__init__(f"{type(plugin).__name__}.{method} must return {wanted}, got {got}")


class CarryingPlugin(SupervisedPlugin, supports_distributed=False):
    """Base of regularisers and memories.

    :meth:`meet` is called first, once. When a run is resumed, :meth:`remember` is called for every finished
    task, then :meth:`load` with the tensors that were stored after the last of them.
    """

    needs_reference = False
    """Whether the scenario must name a reference set."""

    def meet(self, model: ClipClassifier, data: StreamData) -> None:
        """See the pretrained model and the whole stream's data before anything is trained or restored."""

    @property
    def carries_tensors(self) -> bool:
        """Whether :meth:`tensors` can hold anything; for a part without, nothing is stored or missed."""
        return type(self).tensors is not CarryingPlugin.tensors

    def tensors(self) -> dict[str, Tensor]:
        """What the next experience needs of the past ones and cannot be derived from the tasks."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of :meth:`tensors`."""

    def remember(self, task: TaskData) -> None:
        """Take over what follows from a finished task alone (its label space, its images)."""


def meet_plugins(plugins: Sequence[SupervisedPlugin], model: ClipClassifier, data: StreamData) -> None:
    """Show every plugin the pretrained model and the stream."""
    for plugin in plugins:
        if isinstance(plugin, CarryingPlugin):
            plugin.meet(model, data)


def save_plugins(plugins: Sequence[SupervisedPlugin], folder: RunDir, task: TaskData) -> int:
    """Store what each plugin that carries tensors holds after ``task`` (an empty file says that it holds
    none yet); bytes of all tensors."""
    held = 0
    for position, plugin in enumerate(plugins):
        if isinstance(plugin, CarryingPlugin) and plugin.carries_tensors:
            answer = tensors_of(plugin, "tensors", plugin.tensors())
            # Copies: one tensor under two names is two, in a file.
            tensors = {key: value.detach().cpu().contiguous().clone() for key, value in answer.items()}
            write_bytes(folder.state(task.index, task.name, position), with_checksum(tensors, "state"))
            held += sum(value.nbytes for value in tensors.values())
    return held


def tensors_of(plugin: object, method: str, answer: object) -> Mapping[str, Tensor]:
    """What a method of a plugin returned, where it is a dict of tensors by names.

    Raises:
        WrongAnswer: where it is not.
    """
    if not isinstance(answer, Mapping):
        raise WrongAnswer(plugin, method, _WANTED, type(answer).__name__)
    for key, value in answer.items():
        if not isinstance(value, Tensor):
            raise WrongAnswer(plugin, method, _WANTED, f"{type(value).__name__} for {key!r}")
        if not isinstance(key, str):
            raise WrongAnswer(plugin, method, _WANTED, f"the name {key!r}, which is no text")
    return answer


def restore_plugins(
    plugins: Sequence[SupervisedPlugin], folder: RunDir, done: Sequence[TaskData], device: str
) -> None:
    """Give every plugin what it held after the last finished task."""
    for position, plugin in enumerate(plugins):
        if isinstance(plugin, CarryingPlugin):
            for task in done:
                plugin.remember(task)
            file = folder.state(done[-1].index, done[-1].name, position)
            stored = read_tensors(file) if plugin.carries_tensors else {}
            plugin.load({key: value.to(device) for key, value in stored.items()})


def plugins_intact(plugins: Sequence[SupervisedPlugin], folder: RunDir, index: int, name: str) -> bool:
    """Whether all that plugins held after a task is there as it was written."""
    return all(
        is_intact(folder.state(index, name, position))
        for position, plugin in enumerate(plugins)
        if isinstance(plugin, CarryingPlugin) and plugin.carries_tensors
    )


def forget_plugins(plugins: Sequence[SupervisedPlugin], folder: RunDir, index: int, name: str) -> None:
    """Delete the state after a task; the newest is needed, and the one before it should that be damaged."""
    for position in range(len(plugins)):
        folder.state(index, name, position).unlink(missing_ok=True)
