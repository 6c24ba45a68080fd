"""What a state of the model answers to every task and zero-shot set: kept image by image, told as
accuracies."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from ..clip.classifier import ClipClassifier
from ..clip.evaluate import answers, image_features, share_right
from ..data.tasks import Images, StreamData, TaskData
from ..engine.fitting.fitting import HeadFitting
from ..files import write_bytes
from ..store.answers import load_answers, save_answers
from ..store.folder import RunDir
from .inputs import RunInputs
from .untouched import Standing, standing_of


@dataclass(frozen=True)
class Measured:
    """A state's accuracies.

    Attributes:
        row: on every task, as fractions; NaN where nothing was measured.
        zero_shot: on every zero-shot set.
        seconds: that it took.
        standings: how every set that was measured stands to chance.
    """

    row: list[float]
    zero_shot: dict[str, float]
    seconds: float
    standings: tuple[Standing, ...] = ()


class Measuring:
    """Measures states of a run's model.

    Args:
        run: what is run.
        model: whose weights change between two measurements.
        data: the stream.
        folder: where the answers are kept.
        evaluate: False measures nothing: all accuracies are NaN.
    """

    def __init__(
        self, run: RunInputs, model: ClipClassifier, data: StreamData, folder: RunDir, evaluate: bool
    ) -> None:
        self.run, self.model, self.data, self.folder, self.evaluate = run, model, data, folder, evaluate
        self._features: dict[str, torch.Tensor] = {}

    def untouched(self) -> Measured:
        """The model before the first task."""
        return self._measure(None, True)

    def after(self, task: TaskData, changed: bool, head: HeadFitting | None = None) -> Measured:
        """The model with the task's update merged.

        Args:
            task: the last one learned.
            changed: whether the weights are others than before it; if not, what they answered is not
                asked again.
            head: what answers for the tasks that it has learned; zero-shot sets are answered by their texts.
        """
        return self._measure(task, changed, head)

    def _measure(self, task: TaskData | None, changed: bool, head: HeadFitting | None = None) -> Measured:
        began = time.perf_counter()
        data, independent = self.data, self.run.scenario.independent
        if not self.evaluate:
            return Measured([math.nan] * len(data.tasks), dict.fromkeys(data.zero_shot, math.nan), 0.0)
        sets = {one.name: (measured_images(self.run, one), one.space) for one in data.tasks}
        if independent and task is not None:
            sets = {task.name: sets[task.name]}
        sets |= data.zero_shot
        learned = 0 if task is None else task.index + 1
        # An independent task began with the untouched model.
        before = 0 if independent else learned - 1
        known = {} if changed else load_answers(self.folder.predictions(*self.run.state_name(before)))
        if changed:
            self._features.clear()
        heads = {one.name: head.head_of(one.name) for one in data.tasks} if head is not None else {}
        for name in list(known):
            if heads.get(name) is not None and (head.shared or name == task.name):
                del known[name]  # its head is another now
        found = {}
        for name, (images, space) in sets.items():
            if name in known:
                found[name] = known[name]
                continue
            seen = self._seen(name, images) if self.run.strategy.head is not None else None
            found[name] = answers(self.model, images.pixels, space, head=heads.get(name), features=seen)
        write_bytes(self.folder.predictions(*self.run.state_name(learned)), save_answers(found))
        right = {name: share_right(found[name][0], images.labels) for name, (images, _) in sets.items()}
        row = [right.get(one.name, math.nan) for one in data.tasks]
        standings = tuple(
            standing_of(name, found[name][0], images, space)
            for name, (images, space) in sets.items()
            if len(images)
        )
        retained = {name: right[name] for name in data.zero_shot}
        return Measured(row, retained, time.perf_counter() - began, standings)

    def _seen(self, name: str, images: Images) -> torch.Tensor:
        """Features of a set, which a head of weights that stay as they are asks for after every task."""
        if name not in self._features:
            self._features[name] = image_features(self.model, images.pixels)
        return self._features[name]


def measured_images(run: RunInputs, task: TaskData) -> Images:
    """The images of a task that the matrix is about."""
    return task.test if run.scenario.measure == "test" else task.validation
