"""What every way of fitting a head has in common: the shots as features, one head a task or one for all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...clip.classifier import ClipClassifier
from ...clip.evaluate import image_features, known_features, seen_features
from ...clip.heads.head import Head
from ...config.heads import IN_WEIGHTS
from ...data.images.pixels import augment
from ...data.labels import LabelSpace
from ...data.tasks import StreamData, TaskData
from ...delta import TaskDelta
from ...errors import UserError
from ..constraints import stable_seed
from ..task_state import CarryingPlugin
from .drift import drift_of


@dataclass(frozen=True)
class Shots:
    """A task's images as a model sees them.

    Attributes:
        names: the task's K classes.
        features, labels: ``N × D`` unit features of the training images (and beside them those of the
            untouched tower, ``N × 2 D``, where heads read both), and places in ``names``.
        validation_features, validation_labels: of the validation images, which may be none.
        texts: ``K × D`` unit text features of the classes, all prompts together.
        seen: classes of this task and of all before it where the label space is one, else ``names``.
        seen_texts: their unit text features.
        scale: τ, the model's factor on cosines.
        seed: of everything that is drawn.
        views: number of views → ``views × N × D`` unit features of augmented training images.
    """

    names: tuple[str, ...]
    features: Tensor
    labels: Tensor
    validation_features: Tensor
    validation_labels: Tensor
    texts: Tensor
    seen: tuple[str, ...]
    seen_texts: Tensor
    scale: float
    seed: int
    views: Callable[[int], Tensor]

    @property
    def shots(self) -> int:
        """Training images a class, on average and at least one."""
        return max(1, round(len(self.labels) / len(self.names)))

    def contrasted(self, classes: str) -> tuple[tuple[str, ...], Tensor]:
        """Classes that the task's images are told apart from in training, and their unit text features.

        Args:
            classes: ``task`` for its own; ``seen`` and ``auto`` for all so far. Unlike texts that towers push
                away, what a head has of earlier classes stays, so contrasting with it costs them nothing, and
                one head has to tell them apart.
        """
        return (self.names, self.texts) if classes == "task" else (self.seen, self.seen_texts)


@dataclass(frozen=True)
class Fitted:
    """What fitting leaves.

    Attributes:
        head: that answers from now on; None where all of it went into the weights.
        trained: how many numbers were fitted.
        told: what was chosen, for the record of the task.
        delta: to be added to the model's weights.
    """

    head: Head | None
    trained: int
    told: dict[str, Any] = field(default_factory=dict)
    delta: TaskDelta = field(default_factory=TaskDelta)


class HeadFitting(CarryingPlugin, supports_distributed=False):
    """Fits a head after every task.

    Tasks that are told apart by their label space (task-incremental) have a head each. Where the label space
    is one for all (class- and domain-incremental), so is the head, which goes on from what it was.

    Args:
        settings: of its kind.
        seed: of the run.
        shared: one head for all tasks.

    Attributes:
        latest: of the last finished task.
    """

    needs_classes = "is all that learns, from the classes of a task"
    """Of a head without an adapter; one beside it leaves captions to the towers."""

    def __init__(self, settings: Any, seed: int, shared: bool) -> None:
        super().__init__()
        self.settings, self.seed, self.shared = settings, seed, shared
        self.latest: Head | None = None
        self._by_task: dict[str, Head] = {}

    @property
    def keeps_heads(self) -> bool:
        """Whether there is a head after every task; not where all of it goes into the weights."""
        return self.settings.kind not in IN_WEIGHTS

    @abstractmethod
    def fit(self, shots: Shots, earlier: Head | None) -> Fitted:
        """A head for a task.

        Args:
            shots: of the task.
            earlier: the head that all tasks share, as it was before; None before the first, and where every
                task has its own.
        """

    def fits(self, model: ClipClassifier) -> None:
        """Find out before any work whether the model has what is needed.

        Raises:
            ValueError: saying what is missing.
        """

    def see(self, model: ClipClassifier, task: TaskData) -> None:
        """See a task's images as the towers are before they learn it, where something hangs on that."""

    def learn(self, model: ClipClassifier, task: TaskData) -> Fitted:
        """Fit a head to a task, with the model as it is after it.

        Raises:
            UserError: for features that are no numbers.
        """
        shots = shots_of(model, task, self.seed)
        if not shots.features.isfinite().all():
            raise UserError(
                f"task '{task.name}': the image tower's features are not finite, so that no head can be"
                " fitted to them; where the tower was trained, training diverged: lower optimiser.lr"
            )
        fitted = self.fit(shots, self.latest if self.shared else None)
        if fitted.head is None:
            return fitted
        if not self.shared:
            means = class_means(shots.features, shots.labels, len(shots.names))
            fitted = replace(fitted, head=replace(fitted.head, means=means))
        self.finished(task.name, fitted.head)
        return fitted

    def finished(self, task: str, head: Head) -> None:
        """Take over the head of a task, just fitted or read again."""
        self.latest = self._by_task[task] = head

    def head_of(self, task: str) -> Head | None:
        """What answers for a task; None where its texts still do."""
        return self.latest if self.shared else self._by_task.get(task)


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """``classes × D`` unit rows; zeros for a class without an image."""
    sums = torch.zeros(classes, features.shape[1], dtype=torch.float64, device=features.device)
    sums.index_add_(0, labels, features.double())
    return F.normalize(sums, dim=-1).float()


def shots_of(model: ClipClassifier, task: TaskData, seed: int) -> Shots:
    """The shots of a task as the model sees them now."""
    names = task.plan.class_names
    seed = stable_seed(seed, task.index, "head")
    device = model.mean.device

    def own(labels: Tensor, space: LabelSpace) -> Tensor:
        place = {name: k for k, name in enumerate(names)}
        return torch.tensor([place[space.class_names[k]] for k in labels.tolist()], dtype=torch.long).to(
            device
        )

    def views(count: int) -> Tensor:
        generator = torch.Generator().manual_seed(stable_seed(seed, task.index, "views"))
        how = task.augment
        seen = [
            image_features(model, augment(task.train.pixels, tuple(how.crop), how.flip, generator))
            for _ in range(count)
        ]
        return torch.stack(seen)

    with torch.no_grad():
        texts = model.text.features(LabelSpace.from_templates(names, task.plan.prompts))
        seen = task.train_space if task.seen_space is None else task.seen_space
        seen_texts = model.text.features(seen)
    return Shots(
        names=tuple(names),
        features=seen_features(model, task.train.pixels),
        labels=own(task.train.labels, task.train_space),
        validation_features=seen_features(model, task.validation.pixels),
        validation_labels=own(task.validation.labels, task.space),
        texts=texts.float(),
        seen=seen.class_names,
        seen_texts=seen_texts.float(),
        scale=float(model.clip.logit_scale.detach().float().exp()),
        seed=seed,
        views=views,
    )


class KeptShots:
    """Features of all shots so far, for heads that are fitted to all of them where the label space is one.

    Attributes:
        names: classes so far, in the order in which they came.
        features, labels: of all shots, ``N × D`` and ``(N,)`` among ``names``.
        validation_features, validation_labels: of the validation images of all tasks so far, where they are
            kept; may be none.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.features, self.labels = torch.empty(0, 0), torch.empty(0, dtype=torch.long)
        self.validation_features, self.validation_labels = self.features, self.labels

    def add(self, shots: Shots, validation: bool = False) -> None:
        """Those of another task, with its validation images or without."""
        self.meet(shots.names)
        place = torch.tensor([self.names.index(name) for name in shots.names], device=shots.labels.device)
        before = self.features, self.labels
        self.features, self.labels = _joined(*before, shots.features, place[shots.labels])
        if validation and len(shots.validation_labels):
            before = self.validation_features, self.validation_labels
            own = shots.validation_features, place[shots.validation_labels]
            self.validation_features, self.validation_labels = _joined(*before, *own)

    def carry(self, over: Callable[[Tensor], Tensor]) -> None:
        """Put features in the place of what they were."""
        self.features = over(self.features)
        if len(self.validation_labels):
            self.validation_features = over(self.validation_features)

    def meet(self, names: tuple[str, ...]) -> None:
        """Classes of a task."""
        self.names += tuple(name for name in names if name not in self.names)

    def tensors(self) -> dict[str, Tensor]:
        """What is stored; the names follow from the tasks."""
        found = {"features": self.features, "labels": self.labels}
        if len(self.validation_labels):
            found["validation_features"] = self.validation_features
            found["validation_labels"] = self.validation_labels
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of :meth:`tensors`."""
        self.features, self.labels = tensors["features"], tensors["labels"]
        if "validation_labels" in tensors:
            self.validation_features = tensors["validation_features"]
            self.validation_labels = tensors["validation_labels"]


def _joined(features: Tensor, labels: Tensor, more: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    return (torch.cat([features, more]), torch.cat([labels, own])) if len(labels) else (more, own)


class KeepingFitting(HeadFitting, supports_distributed=False):
    """Keeps the features of all shots so far where the label space is one, and with them those of validation
    images by which something is chosen: one head answers for all tasks, so all of them have a say in it."""

    def __init__(self, settings: Any, seed: int, shared: bool) -> None:
        super().__init__(settings, seed, shared)
        self.kept = KeptShots()
        self._validated = True

    @property
    def chooses(self) -> bool:
        """Whether something is chosen on validation images."""
        return False

    def keep(self, shots: Shots) -> None:
        """Take in a task; nothing where every task has a head of its own."""
        if self.shared:
            self.kept.add(shots, self.chooses)
            self._validated = self._validated and len(shots.validation_labels) > 0

    def held(self, shots: Shots) -> tuple[Tensor, Tensor]:
        """Features ``N × D`` and labels of the validation images that choose; may be none.

        Labels are places in the task's names, or in the kept ones where one head is for all: there they are
        the images of all tasks so far, and none unless every one of them had some. Those of some tasks alone
        would choose what suits these tasks.
        """
        if not self.shared:
            return shots.validation_features, shots.validation_labels
        there = slice(None) if self._validated else slice(0)
        return self.kept.validation_features[there], self.kept.validation_labels[there]

    @property
    def carries_tensors(self) -> bool:
        """Not where every task has a head of its own, to which no images of another are fitted."""
        return self.shared

    def tensors(self) -> dict[str, Tensor]:
        """As in the base class."""
        return self.kept.tensors() if self.shared else {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """As in the base class."""
        if self.shared:
            self.kept.load(tensors)

    def remember(self, task: TaskData) -> None:
        """As in the base class."""
        self.kept.meet(tuple(task.plan.class_names))
        self._validated = self._validated and len(task.validation) > 0


class FittingToAll(KeepingFitting, supports_distributed=False):
    """Fits to the shots of the task, and where the label space is one to the kept features of all so far, as
    the towers would have them now (:func:`~.drift.drift_of`)."""

    def __init__(self, settings: Any, seed: int, shared: bool) -> None:
        super().__init__(settings, seed, shared)
        self._before: Tensor | None = None
        self._all_again = False

    def meet(self, model: ClipClassifier, data: StreamData) -> None:
        """Learn whether every task brings all classes again, as domains do: features of the current
        towers then stand beside those that would have to be carried over."""
        classes = {frozenset(task.plan.class_names) for task in data.tasks if not task.captioned}
        self._all_again = len(classes) == 1

    def see(self, model: ClipClassifier, task: TaskData) -> None:
        """As in the base class."""
        if self.settings.drift is None or not self.shared:
            return
        if len(self.kept.labels) and not self._all_again:
            self._before = known_features(model, task.train.pixels)

    def fit(self, shots: Shots, earlier: Head | None) -> Fitted:
        """As in the base class."""
        before, self._before = self._before, None
        if before is not None:
            now = shots.features[:, : before.shape[1]]
            if not torch.equal(before, now):
                self.kept.carry(drift_of(before, now, self.settings.drift))
        self.keep(shots)
        if not self.shared:
            return self.fit_to(shots.names, shots.features, shots.labels, shots)
        return self.fit_to(self.kept.names, self.kept.features, self.kept.labels, shots)

    @abstractmethod
    def fit_to(self, names: tuple[str, ...], features: Tensor, labels: Tensor, shots: Shots) -> Fitted:
        """A head for some classes from their features; ``shots`` is the last task alone."""
