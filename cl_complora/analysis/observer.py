"""Follows a run task by task and leaves one file a task in its folder; changes nothing and draws no random
number."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ..clip.classifier import ClipClassifier
from ..clip.evaluate import known_features
from ..clip.slots import open_slots
from ..data.tasks import StreamData, TaskData
from ..delta import TaskDelta
from ..engine.observer import Observer
from ..errors import UserError
from ..files import write_bytes, write_json
from ..store.folder import RunDir
from ..store.tensors import read_tensors, with_checksum
from .changes import change_of_parameter
from .geometry import GeometryWatch, Update
from .representation import linear_cka, spread
from .words import words_moved


class AnalysisObserver(Observer):
    """Geometry of the updates and drift of the features, live.

    Args:
        model: the classifier that is trained, with its pretrained weights.
        folder: of the run.
        independent: whether every task starts from the pretrained weights, so that none can drift away from
            another.
        tell: told which features of an earlier process cannot be read.
    """

    def __init__(
        self,
        model: ClipClassifier,
        folder: RunDir,
        independent: bool,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.model, self.folder, self.independent, self.tell = model, folder, independent, tell
        self.geometry = GeometryWatch(open_slots(model.clip), independent)
        self._tasks: Sequence[TaskData] = ()
        self._features: dict[str, Tensor] = {}
        self._current: dict[str, Tensor] = {}  # with the weights as they are

    def stream_begins(self, data: StreamData, deltas: Sequence[TaskDelta]) -> None:
        """Pick up what earlier tasks left; what is missing (of a run without analysis) or damaged is not
        compared with."""
        self._tasks = data.tasks
        for task, delta in zip(data.tasks, deltas, strict=False):
            self.geometry.restore(task.name, self._updates(delta))
            features = self._stored(task)
            if features is not None:
                self._features[task.name] = features

    def task_begins(self, task: TaskData, steps: int) -> None:
        """The weights as they are now are what the update is compared with."""
        self.geometry.before()

    def task_learned(self, task: TaskData, delta: TaskDelta) -> None:
        """The task is merged: measure and write."""
        began = time.perf_counter()
        if delta:
            self._current.clear()
        found: dict[str, Any] = {"matrices": self.geometry.after(task.name, self._updates(delta)), "cka": {}}
        if words := words_moved(delta, self.model.text.tokenizer):
            found["words"] = words
        if not self.independent:
            found["cka"] = {name: linear_cka(then, self._now(name)) for name, then in self._features.items()}
            self._features[task.name] = self._now(task.name)
            stored = with_checksum({"features": self._features[task.name]}, "features")
            write_bytes(self.folder.features(task.index, task.name), stored)
        found["seconds"] = time.perf_counter() - began
        write_json(self.folder.analysis(task.index, task.name), found)

    def _stored(self, task: TaskData) -> Tensor | None:
        """Features of the task's images just after it as an earlier process left them; a run needs none."""
        path = self.folder.features(task.index, task.name)
        if self.independent or not path.exists():
            return None
        try:
            found = read_tensors(path).get("features")
            if found is None or found.dim() != 2 or len(found) != len(spread(len(task.test.pixels))):
                raise UserError(f"{path}: damaged (not the features of these images)")
        except UserError as error:
            self.tell(f"warning: {error.messages[0]}; no later task is compared with it")
            return None
        return found

    def _now(self, name: str) -> Tensor:
        """Image features of a sample of the task's test images, in 16 bits: what is stored is what is
        compared."""
        if name not in self._current:
            pixels = next(task for task in self._tasks if task.name == name).test.pixels
            self._current[name] = known_features(self.model, pixels[spread(len(pixels))]).cpu().half()
        return self._current[name]

    def _updates(self, delta: TaskDelta) -> dict[str, Update]:
        """Matrix → what was added to it, also where q, k and v moved as one weight."""
        updates = {}
        for slot in self.geometry.slots:
            if slot.key in delta.factors:
                b, a = delta.factors[slot.key]
                updates[slot.name] = Update(b @ a, (b, a))
            elif (change := change_of_parameter(delta, slot)) is not None:
                updates[slot.name] = Update(change)
        return updates
