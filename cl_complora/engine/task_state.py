"""Plugins that carry something from one task to the next, and how a resumed run gives it back to them."""

from __future__ import annotations

from collections.abc import Mapping

from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor

from ..clip.classifier import ClipClassifier
from ..data.tasks import StreamData, TaskData


class CarryingPlugin(SupervisedPlugin, supports_distributed=False):
    """Base of regularisers and memories.

    :meth:`meet` is called first, once. When a run is resumed, :meth:`remember` is called for every finished
    task, then :meth:`load` with the tensors that were stored after the last of them.
    """

    needs_reference = False
    """Whether the scenario must name a reference set."""

    def meet(self, model: ClipClassifier, data: StreamData) -> None:
        """See the pretrained model and the whole stream's data before anything is trained or restored."""

    def tensors(self) -> dict[str, Tensor]:
        """What the next experience needs of the past ones and cannot be derived from the tasks."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of :meth:`tensors`."""

    def remember(self, task: TaskData) -> None:
        """Take over what follows from a finished task alone (its label space, its images)."""
