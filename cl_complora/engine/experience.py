"""Experiences that carry their own label space, and the stream of training batches drawn from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import torch
from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from torch import Tensor
from torch.utils.data import TensorDataset

from ..config.training import Training
from ..data.images.pixels import augment
from ..data.labels import LabelSpace
from ..data.tasks import Images, TaskData
from .checkpoint import StepState
from .training.caption_pairs import drawn_captions


def as_avalanche(images: Images) -> AvalancheDataset:
    """Images in memory as an Avalanche data set with ``targets`` (what storage policies and stock plugins
    read)."""
    return AvalancheDataset(
        [TensorDataset(images.pixels, images.labels)],
        data_attributes=[DataAttribute(images.labels.tolist(), "targets")],
    )


class ClipExperience(DatasetExperience):
    """One training experience of a CLIP stream: a task, or several at once (joint training).

    Labels are local to a task. There are no Avalanche task labels: with them Avalanche balances and
    oversamples tasks behind the user's back.

    Args:
        parts: the tasks trained together; one for ordinary streams.
        position: place in the stream, from 0.

    Attributes:
        name: names of the tasks.
        of_parts: label space of each part's training loss: its own, or all classes seen where the tasks share
            one.
        spaces: the different ones among them.
        place: of each part, the place of its space among :attr:`spaces`.
        test_space: label space of the part's test images (of the first part).
        captioned: of each space, whether its images have captions; :attr:`spaces` then holds the first ones,
            and :class:`TrainingBatches` draws those of a step.
    """

    def __init__(self, parts: Sequence[TaskData], position: int) -> None:
        self.parts = list(parts)
        dataset = as_avalanche(parts[0].train)
        for part in parts[1:]:
            dataset = dataset.concat(as_avalanche(part.train))
        super().__init__(dataset=dataset, current_experience=position)
        self.name = " + ".join(part.name for part in parts)
        self.of_parts = [contrasted_with(part, parts[-1]) for part in parts]
        self.test_space = parts[0].space
        self.spaces, self.captioned, self.place = [], [], []
        for part, space in zip(parts, self.of_parts, strict=True):
            if part.captioned or space not in self.spaces:  # captions are each task's own
                self.spaces.append(space)
                self.captioned.append(part.captioned)
            self.place.append(len(self.spaces) - 1 if part.captioned else self.spaces.index(space))

    @cached_property
    def class_counts(self) -> list[Tensor]:
        """Training images of every class of each of :attr:`spaces`; those of all parts that share one add up.

        They come from the training split alone, in the order of the labels that it is trained with.
        """
        counts = [torch.zeros(len(space), dtype=torch.long) for space in self.spaces]
        for part, place in zip(self.parts, self.place, strict=True):
            counts[place] += torch.bincount(part.train.labels, minlength=len(counts[place]))
        return counts

    @property
    def train_images(self) -> int:
        """Number of training images."""
        return sum(len(part.train) for part in self.parts)

    @property
    def pixels(self) -> Tensor:
        """All training images, ``N × 3 × H × W`` uint8; those of a single part are not copied, since they may
        lie on disk."""
        parts = [part.train.pixels for part in self.parts]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def contrasted_with(old: TaskData, current: TaskData) -> LabelSpace:
    """Classes that an earlier task's image is contrasted with: where both share one label space, all seen by
    now."""
    own, seen = old.train_space, current.train_space
    shared = old.space == current.space and seen.class_names[: len(own)] == own.class_names
    return seen if shared else own


# Which tasks are trained together at a position of the stream; joint training does all of it in place of the
# first.
_TOGETHER: dict[str, Callable[[list[TaskData], int], list[TaskData]]] = {
    "sequential": lambda tasks, position: [tasks[position]],
    "cumulative": lambda tasks, position: tasks[: position + 1],
    "joint": lambda tasks, position: tasks if position == 0 else [],
}


def experience_at(stream: str, tasks: Sequence[TaskData], position: int) -> ClipExperience | None:
    """What is trained at a position of the stream; None for nothing.

    Args:
        stream: a strategy's ``training.stream``.
        tasks: all of the stream.
        position: from 0.
    """
    together = _TOGETHER[stream](list(tasks), position)
    return ClipExperience(together, position) if together else None


def steps_at(training: Training, tasks: Sequence[TaskData], position: int) -> int:
    """Steps that are trained at a position of the stream: joint training has those of all tasks together.

    Args:
        training: settings.
        tasks, position: as for :func:`experience_at`.
    """
    together = _TOGETHER[training.stream](list(tasks), position)
    if training.stream == "joint":
        return sum(training.steps_for(len(task.train)) for task in together)
    return training.steps_for(sum(len(task.train) for task in together))


class TrainingBatches(StepState):
    """Exactly ``steps`` shuffled, augmented batches; every image is seen once before any is seen again.

    Draws from generators of its own, so that nothing else that is random (evaluation, another loader) shifts
    them.

    Args:
        experience: where from.
        steps, batch_size: how many and how large (smaller experiences give smaller batches).
        seed: of order, augmentation and template choice.
        device: where images are augmented; the draws are the CPU's, and so the same everywhere.

    Attributes:
        chosen: places of the present batch's images among :attr:`pixels`.
        template: draw for the present batch's prompts.
        drawn: place of a space whose images have captions → the texts drawn for the present batch.
    """

    def __init__(
        self,
        experience: ClipExperience,
        steps: int,
        batch_size: int,
        seed: int,
        device: str | torch.device = "cpu",
    ) -> None:
        self.experience, self.steps, self.device = experience, steps, device
        self.batch_size = min(batch_size, experience.train_images)
        self.generator = torch.Generator().manual_seed(seed)
        self.template = 0
        self.drawn: dict[int, LabelSpace] = {}
        self.done = 0
        self._order = self.chosen = torch.empty(0, dtype=torch.long)

    def __len__(self) -> int:
        return self.steps

    @property
    def pixels(self) -> Tensor:
        """All training images of the experience, ``N × 3 × H × W`` uint8."""
        return self.experience.pixels

    @property
    def augmented(self) -> bool:
        """Whether an image may look another way each time."""
        return any(part.augment.changes for part in self.experience.parts)

    def __iter__(self) -> Iterator[list[Tensor]]:
        parts = self.experience.parts
        pixels = self.pixels
        labels = torch.cat([part.train.labels for part in parts])
        part_of = torch.cat([torch.full((len(part.train),), i) for i, part in enumerate(parts)])
        place = torch.tensor(self.experience.place)
        while self.done < self.steps:
            self.done += 1
            while len(self._order) < self.batch_size:
                self._order = torch.cat([self._order, torch.randperm(len(labels), generator=self.generator)])
            chosen, self._order = self._order[: self.batch_size], self._order[self.batch_size :]
            self.chosen = chosen
            # Drawn whether used or not, so that the prompt setting changes no image.
            self.template = int(torch.randint(0, 2**31, (1,), generator=self.generator))
            images = _to(self.device, pixels[chosen])
            answers = self._paired(labels[chosen], chosen, part_of)
            yield [self._augmented(images, part_of[chosen]), answers, place[part_of[chosen]]]

    def _paired(self, labels: Tensor, chosen: Tensor, part_of: Tensor) -> Tensor:
        """Labels of a batch, those of images with captions among the texts that are drawn for it."""
        self.drawn = {}
        for index in (index for index, part in enumerate(self.experience.parts) if part.captioned):
            members = part_of[chosen] == index
            if bool(members.any()):
                first = int((part_of < index).sum())
                written = self._written[index]
                texts = [written[place - first] for place in chosen[members].tolist()]
                space, places = drawn_captions(texts, self.generator)
                self.drawn[self.experience.place[index]] = space
                labels = labels.clone()
                labels[members] = torch.tensor(places)
        return labels

    @cached_property
    def _written(self) -> list[tuple[tuple[str, ...], ...]]:
        """Of every part, the texts of its images."""
        parts = self.experience.parts
        return [part.plan.captions("train").texts if part.captioned else () for part in parts]

    def step_state(self) -> dict[str, Tensor]:
        """Place in the stream of batches and in that of random numbers."""
        return {
            "generator": self.generator.get_state(),
            "order": self._order,
            "done": torch.tensor(self.done),
        }

    def load_step_state(self, tensors: Mapping[str, Tensor]) -> None:
        """As in the base class."""
        self.generator.set_state(tensors["generator"])
        self._order, self.done = tensors["order"], int(tensors["done"])

    def _augmented(self, images: Tensor, part_of: Tensor) -> Tensor:
        indices = part_of.unique().tolist()
        if len(indices) == 1:  # nothing is picked out, which a GPU would be waited for
            how = self.experience.parts[indices[0]].augment
            return augment(images, tuple(how.crop), how.flip, self.generator)
        changed = images.clone()
        for index in indices:
            members = (part_of == index).to(self.device)
            how = self.experience.parts[index].augment
            changed[members] = augment(images[members], tuple(how.crop), how.flip, self.generator)
        return changed


def _to(device: str | torch.device, images: Tensor) -> Tensor:
    """On a device; a GPU copies from page-locked memory while the program goes on."""
    if torch.device(device).type == "cuda":
        return images.pin_memory().to(device, non_blocking=True)
    return images.to(device)
