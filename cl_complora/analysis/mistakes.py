"""Which images a run got wrong that it once had right, from the answers that every task left in
``predictions/``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from ..store.answers import Answers, answers_of
from ..store.folder import RunDir

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Mistake:
    """An image that was right and is wrong now.

    Attributes:
        position: its place among the measured images of its set.
        key: what its source calls it (a relative path, say).
        truth: its class.
        earlier_share: probability that the truth had when it was the answer.
        answer: the class that it is taken for now.
        share: probability of that answer.
    """

    position: int
    key: str
    truth: str
    earlier_share: float
    answer: str
    share: float


@dataclass(frozen=True)
class Confusion:
    """How often images of one class are taken for another.

    Attributes:
        truth, answer: the two classes.
        earlier, now: number of images in the two states.
    """

    truth: str
    answer: str
    earlier: int
    now: int


@dataclass
class Changes:
    """What became of the answers on one task or zero-shot set between two states of a run.

    Attributes:
        name: of the set.
        images: how many were measured.
        right_earlier, right_now: how many of them were right.
        mistakes: right in the earlier state and wrong in the later, the most confident first.
        confusions: pairs of classes that are confused in either state, the one that grew most first.
    """

    name: str
    images: int
    right_earlier: int
    right_now: int
    mistakes: list[Mistake] = field(default_factory=list)
    confusions: list[Confusion] = field(default_factory=list)


@dataclass(frozen=True)
class AnsweredSet:
    """A task or zero-shot set of a run whose answers in many states may be asked for.

    Attributes:
        folder, config: of the run.
        name: of the set.
        images: rows of its split manifest that were measured.
        classes: that they are told apart into.
        truth: label of every image.
    """

    folder: RunDir
    config: dict[str, Any]
    name: str
    images: list[dict[str, Any]]
    classes: list[str]
    truth: np.ndarray

    @classmethod
    def of(cls, folder: RunDir, config: dict[str, Any], name: str) -> AnsweredSet:
        """Read what is the same in every state.

        Args:
            folder, config, name: as for :func:`changes`.

        Raises:
            UserError: as :func:`changes`.
        """
        images, classes = measured_images(folder, config, name), label_space(folder, config, name)
        position = {class_name: label for label, class_name in enumerate(classes)}
        if any(row["class"] not in position for row in images):
            raise _unfit(folder, name)
        truth = np.array([position[row["class"]] for row in images])
        return cls(folder, config, name, images, classes, truth)

    def answers(self, state: int) -> Answers:
        """What a state answered.

        Raises:
            UserError: as :func:`changes`.
        """
        found = answers_of(self.folder, self.config, self.name, state)
        if len(self.images) != len(found.labels):
            raise UserError(
                f"{self.folder.root}: the answers on '{self.name}' are not those to the images of its split"
                " manifest"
            )
        if found.highest() >= len(self.classes):
            raise _unfit(self.folder, self.name)
        return found

    def right(self, state: int) -> np.ndarray:
        """Which images a state got right.

        Raises:
            UserError: as :func:`changes`.
        """
        return self.answers(state).labels == self.truth


def _unfit(folder: RunDir, name: str) -> UserError:
    return UserError(
        f"{folder.root}: the answers on '{name}' do not fit the classes in {folder.classes.name}"
    )


def changes(folder: RunDir, config: dict[str, Any], name: str, earlier: int, now: int) -> Changes:
    """Compare the answers of two states on one set.

    Args:
        folder: the run.
        config: its config.yaml.
        name: a task or zero-shot set.
        earlier, now: states, counted by the tasks that they have learned (0: the untouched model).

    Raises:
        UserError: where the answers, or the names that belong to them, are missing or do not fit together.
    """
    found = AnsweredSet.of(folder, config, name)
    images, classes, truth = found.images, found.classes, found.truth
    before, after = (found.answers(state) for state in (earlier, now))
    lost = np.flatnonzero((before.labels == truth) & (after.labels != truth))
    lost = lost[np.argsort(-after.shares[lost], kind="stable")]
    mistakes = [
        Mistake(
            int(place),
            images[place]["key"],
            classes[truth[place]],
            float(before.shares[place]),
            classes[after.labels[place]],
            float(after.shares[place]),
        )
        for place in lost
    ]
    right = [int((state.labels == truth).sum()) for state in (before, after)]
    confusions = _confusions(classes, truth, before.labels, after.labels)
    return Changes(name, len(images), *right, mistakes, confusions)


@dataclass(frozen=True)
class ClassAnswers:
    """How many images of one class every state got right.

    Attributes:
        name: the class.
        images: how many were measured.
        right: how many of them every state got right, in the order that the states were asked for in.
    """

    name: str
    images: int
    right: tuple[int, ...]


def answers_by_class(
    folder: RunDir, config: dict[str, Any], name: str, states: Sequence[int]
) -> list[ClassAnswers]:
    """Right answers of several states by class, without the classes that no measured image shows.

    Args:
        folder, config, name: as for :func:`changes`.
        states: counted by the tasks that they have learned.

    Raises:
        UserError: as :func:`changes`.
    """
    found = AnsweredSet.of(folder, config, name)
    classes, truth = found.classes, found.truth
    given = [found.answers(state) for state in states]
    images = np.bincount(truth, minlength=len(classes))
    right = [np.bincount(truth[a.labels == truth], minlength=len(classes)) for a in given]
    return [
        ClassAnswers(classes[label], int(images[label]), tuple(int(counts[label]) for counts in right))
        for label in np.flatnonzero(images)
    ]


def right_answers(
    folder: RunDir, config: dict[str, Any], name: str, state: int
) -> tuple[list[str], np.ndarray]:
    """Keys of a set's images, and which of them a state got right.

    Args:
        folder, config, name: as for :func:`changes`.
        state: counted by the tasks that it has learned.

    Raises:
        UserError: as :func:`changes`.
    """
    found = AnsweredSet.of(folder, config, name)
    return [image["key"] for image in found.images], found.right(state)


def _confusions(
    classes: Sequence[str], truth: np.ndarray, before: np.ndarray, after: np.ndarray
) -> list[Confusion]:
    earlier, now = (
        Counter((int(t), int(a)) for t, a in zip(truth, labels, strict=True) if t != a)
        for labels in (before, after)
    )
    found = [Confusion(classes[t], classes[a], earlier[t, a], now[t, a]) for t, a in sorted({*earlier, *now})]
    return sorted(found, key=lambda pair: (pair.earlier - pair.now, -pair.now))


def measured_images(folder: RunDir, config: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Rows of a set's split manifest that accuracy is measured on.

    Raises:
        UserError: if the manifest is missing or damaged.
    """
    return [row for row in folder.read_split(name) if row["split"] == measured_split(config, name)]


def measured_split(config: dict[str, Any], name: str) -> str:
    """``test`` or ``validation``; a zero-shot set calls what it is measured on ``test`` in either case."""
    is_task = any(task["name"] == name for task in config["scenario"]["tasks"])
    return config["scenario"].get("measure", "test") if is_task else "test"


def label_space(folder: RunDir, config: dict[str, Any], name: str) -> list[str]:
    """Classes that a set's images are told apart into, in label order.

    Raises:
        UserError: if the run does not name them.
    """
    labels = folder.read_labels()
    tasks = [task["name"] for task in config["scenario"]["tasks"]]
    try:
        if name in tasks and config["scenario"]["protocol"] == "class-incremental":
            return list(dict.fromkeys(label for task in tasks for label in labels[task]["classes"]))
        return list(labels[name]["classes"])
    except (KeyError, TypeError):
        raise UserError(f"{folder.classes}: missing, or without the classes of '{name}'") from None


def pictures(
    folder: RunDir, config: dict[str, Any], name: str, positions: Sequence[int], side: int
) -> Tensor:
    """Small versions of some measured images of a task, from the data that the run was made with.

    Args:
        folder, config, name: as for :func:`changes`.
        positions: places among the measured images.
        side: height and width, in pixels; the centre of a picture that is no square.

    Returns:
        ``N × 3 × side × side`` uint8.

    Raises:
        UserError: if the data is gone or is not what it was.
    """
    from ..data.images.pixels import Pixels
    from ..data.planning import only_task, plan

    scenario = only_task(folder.recorded_scenario(config), name)
    try:
        (chosen,) = plan(scenario, config["seed"]).tasks
        if chosen.sha256() != config["splits"].get(name):
            raise UserError(f"'{name}' has other pictures now than when the run was made")
        items = chosen.test if measured_split(config, name) == "test" else chosen.validation
        return chosen.source.load([items[place] for place in positions], Pixels((side, side)))
    except OSError as error:
        raise UserError(f"the pictures of '{name}' cannot be read: {error.strerror or error}") from None
