"""What a state of the model answers to every task, zero-shot set and retrieval set: kept image by image, told
as accuracies and as R@k."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from ..clip.classifier import ClipClassifier
from ..clip.evaluate import UntouchedFeatures, answers, image_features, known_features, share_right
from ..clip.heads.head import Head
from ..clip.label_scores import compound_tokens, precisions
from ..clip.retrieval import ranks, text_features
from ..data.labels import LabelSpace
from ..data.tasks import CaptionData, Images, MultiLabelData, StreamData, TaskData
from ..engine.fitting.fitting import HeadFitting
from ..files import write_bytes
from ..metrics import recall_at
from ..store.answers import load_answers, load_ranks, save_answers
from ..store.folder import RunDir
from ..store.forms import DIRECTIONS, PRECISIONS, RECALLS
from ..store.records import Retrieval
from .by_shots import bounds_of, by_shots, groups_of
from .changed_answers import ChangedAnswers, changed_answers
from .failures import told_of_memory
from .inputs import RunInputs
from .kept_answers import KeptAnswers
from .untouched import Standing, standing_of


@dataclass(frozen=True)
class Measured:
    """A state's accuracies.

    Attributes:
        row: on every task, as fractions; NaN where nothing was measured.
        zero_shot: on every zero-shot set.
        seconds: that it took.
        retrieval: R@k on every retrieval set.
        by_shots: on every task, the means of the classes' accuracies by shots; nothing where shots are even.
        multi_label: mAP by every scorer on every multi-label set.
        standings: how every set stands to chance; of the untouched model.
        changed: of the untouched model, where it is not measured in 32 bits: answers that are others there.
        known: of the untouched model: sets that an earlier run on this machine had measured.
    """

    row: list[float]
    zero_shot: dict[str, float]
    seconds: float
    retrieval: Retrieval = field(default_factory=dict)
    by_shots: dict[str, dict[str, float]] = field(default_factory=dict)
    multi_label: dict[str, dict[str, float]] = field(default_factory=dict)
    standings: tuple[Standing, ...] = ()
    changed: ChangedAnswers | None = None
    known: int = 0


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
        self.bounds = bounds_of(run.scenario, run.plans)
        self.captions = captions_of(run, data)
        self._features: dict[str, torch.Tensor] = {}
        self._untouched = UntouchedFeatures(model)
        self._tokens: dict[str, torch.Tensor | None] = {}
        self._precisions: dict[str, dict[str, float]] = {}  # with the weights as they are

    def untouched(self) -> Measured:
        """The model before the first task."""
        found = self._measured(None, True)
        precision = self.run.scenario.evaluation.precision
        if precision == "fp32" or not self.evaluate:
            return found
        return replace(found, changed=self._compared(precision))

    def after(self, task: TaskData, changed: bool, head: HeadFitting | None = None) -> Measured:
        """The model with the task's update merged.

        Args:
            task: the last one learned.
            changed: whether the weights are others than before it; if not, what they answered is not
                asked again.
            head: what answers for the tasks that it has learned; zero-shot sets are answered by their texts.
        """
        return self._measured(task, changed, head)

    def _measured(self, task: TaskData | None, changed: bool, head: HeadFitting | None = None) -> Measured:
        what = "measuring the untouched model" if task is None else f"measuring after task '{task.name}'"
        precise = self.model.measured_in(self.run.scenario.evaluation.precision)
        with told_of_memory(what, self.run.device), precise:
            return self._measure(task, changed, head)

    def _compared(self, precision: str) -> ChangedAnswers | None:
        """On the largest set that is not learned, or the first task; None where no image has a class."""
        sets = list(self.data.zero_shot.items())
        sets += [("reference", self.data.reference)] if self.data.reference is not None else []
        sets.sort(key=lambda one: -len(one[1][0]))
        tasks = [one for one in self.data.tasks if not one.captioned]
        sets += [(one.name, (measured_images(self.run, one), one.space)) for one in tasks[:1]]
        found = (changed_answers(self.model, name, *both, precision) for name, both in sets)
        return next((one for one in found if one is not None), None)

    def _measure(self, task: TaskData | None, changed: bool, head: HeadFitting | None = None) -> Measured:
        began = time.perf_counter()
        data, independent = self.data, self.run.scenario.independent
        if not self.evaluate:
            nothing = {name: recalls((None, None)) for name in self.captions}
            unknown = {name: dict.fromkeys(PRECISIONS, math.nan) for name in data.multi_label}
            row, zero_shot = [math.nan] * len(data.tasks), dict.fromkeys(data.zero_shot, math.nan)
            return Measured(row, zero_shot, 0.0, nothing, multi_label=unknown)
        asked = [one for one in data.tasks if task is None or not independent or one is task]
        sets = {one.name: (measured_images(self.run, one), one.space) for one in asked if not one.captioned}
        sets |= data.zero_shot
        learned = 0 if task is None else task.index + 1
        # An independent task began with the untouched model.
        before = 0 if independent else learned - 1
        known = {} if changed else load_answers(self.folder.predictions(*self.run.state_name(before)))
        if changed:
            self._features.clear()
        if changed or independent:
            self._precisions.clear()
        heads = {one.name: head.head_of(one.name) for one in data.tasks} if head is not None else {}
        for name in list(known):
            if heads.get(name) is not None and (head.shared or name == task.name):
                del known[name]  # its head is another now
        kept = KeptAnswers(self.run, self.model) if task is None else None
        found = {}
        for name, (images, space) in sets.items():
            if name in known:
                found[name] = known[name]
                continue
            ask = partial(self._answers, name, images, space, heads.get(name))
            found[name] = ask() if kept is None else kept.of_classes(images.pixels, space, ask)
        ranked = {} if changed else load_ranks(self.folder.predictions(*self.run.state_name(before)))
        placed = {}
        # Heads answer for classes; captions are always met by the two towers.
        for name, one in self.captions.items():
            if name in ranked:
                placed[name] = ranked[name]
            elif name in data.retrieval or any(name == other.name for other in asked):
                ask = partial(self._ranks, name, one)
                placed[name] = ask() if kept is None else kept.of_captions(one, ask)
        write_bytes(self.folder.predictions(*self.run.state_name(learned)), save_answers(found, placed))
        right = {name: share_right(found[name][0], images.labels) for name, (images, _) in sets.items()}
        retrieval = {name: recalls(placed.get(name, (None, None))) for name in self.captions}
        right |= {one.name: mean_recall(retrieval[one.name]) for one in asked if one.captioned}
        row = [right.get(one.name, math.nan) for one in data.tasks]
        shots = {
            one.name: self._by_shots(one, found[one.name][0], sets[one.name][0])
            for one in data.tasks
            if self.bounds is not None and one.name in found
        }
        standings = tuple(
            standing_of(name, found[name][0], images, space)
            for name, (images, space) in sets.items()
            if task is None and len(images)
        )
        zero_shot = {name: right[name] for name in data.zero_shot}
        labelled = {name: self._labelled(name, one) for name, one in data.multi_label.items()}
        seconds = time.perf_counter() - began
        told = 0 if kept is None else kept.known
        return Measured(row, zero_shot, seconds, retrieval, shots, labelled, standings, known=told)

    def _answers(
        self, name: str, images: Images, space: LabelSpace, head: Head | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels and shares of a set, from its features where heads will ask for them again."""
        seen = None
        if self.run.strategy.head is not None:
            seen = self._untouched.beside(self._seen(name, images), name, images.pixels, head)
        return answers(self.model, images.pixels, space, head=head, features=seen)

    def _by_shots(self, task: TaskData, answered: torch.Tensor, images: Images) -> dict[str, float]:
        places = [task.space.class_names.index(name) for name in task.plan.class_names]
        return by_shots(answered.numpy(), images.labels.numpy(), places, groups_of(task.plan, self.bounds))

    def _ranks(self, name: str, captioned: CaptionData) -> tuple[torch.Tensor, torch.Tensor]:
        """Ranks of the right answers to the images and to the texts of a retrieval set."""
        if name not in self._tokens:
            self._tokens[name] = self.model.text.tokenizer(list(captioned.plan.captions))
        return ranks(
            image_features(self.model, captioned.pixels),
            text_features(self.model, self._tokens[name]),
            captioned.plan.owners,
        )

    def _labelled(self, name: str, labelled: MultiLabelData) -> dict[str, float]:
        """mAP on a multi-label set, by scorer, which the two towers alone answer for."""
        if name not in self._tokens:
            self._tokens[name] = compound_tokens(self.model, labelled.plan)
        if name not in self._precisions:
            found = precisions(self.model, labelled.pixels, labelled.plan, self._tokens[name])
            self._precisions[name] = dict(zip(PRECISIONS, found, strict=True))
        return self._precisions[name]

    def _seen(self, name: str, images: Images) -> torch.Tensor:
        """Features of a set, which a head of weights that stay as they are asks for after every task."""
        if name not in self._features:
            self._features[name] = known_features(self.model, images.pixels)
        return self._features[name]


def recalls(both: tuple[torch.Tensor | None, torch.Tensor | None]) -> dict[str, dict[str, float]]:
    """R@1, R@5 and R@10 of both directions from the ranks of each; NaN where there are none."""
    return {
        direction: {told: math.nan if placed is None else recall_at(placed, k) for told, k in RECALLS.items()}
        for direction, placed in zip(DIRECTIONS, both, strict=True)
    }


def mean_recall(both: dict[str, dict[str, float]]) -> float:
    """What stands in the matrix for a task of captions: the mean of R@1 of both directions."""
    return sum(shares["R@1"] for shares in both.values()) / len(both)


def captions_of(run: RunInputs, data: StreamData) -> dict[str, CaptionData]:
    """Everything that retrieval is measured on, by name: tasks of captions, then retrieval sets."""
    tasks = {one.name: one.captions(run.scenario.measure) for one in data.tasks if one.captioned}
    return tasks | data.retrieval


def measured_images(run: RunInputs, task: TaskData) -> Images:
    """The images of a task that the matrix is about."""
    return task.test if run.scenario.measure == "test" else task.validation
