"""What plugins read of a training step."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch.optim import Optimizer

from cl_complora.clip.classifier import ClipClassifier
from cl_complora.config.scenario import Augmentation
from cl_complora.data.labels import LabelSpace
from cl_complora.data.tasks import Images, TaskData
from cl_complora.engine.experience import ClipExperience

SPACE = LabelSpace.from_templates(["red", "green", "blue"], ["a photo of a {}"])
OTHER = LabelSpace.from_templates(["square", "circle", "star"], ["a photo of a {}"])


def experience(images: int = 5, space: LabelSpace = SPACE) -> ClipExperience:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    data = Images(pixels, torch.arange(images) % 3)
    return ClipExperience([TaskData("t", 0, space, space, data, data, data, Augmentation(), None)], 0)


class Step:
    """What a plugin reads of a strategy in the middle of a step."""

    def __init__(self, model: ClipClassifier, x: torch.Tensor, where: ClipExperience) -> None:
        self.model, self.mb_x, self.experience, self.loss = model, x, where, torch.zeros(())

    @property
    def mb_features(self) -> torch.Tensor:
        return self.model.image_features(self.mb_x)


class Batches:
    """Batches of an experience, of which so many are done."""

    def __init__(self, steps: int, done: int = 0) -> None:
        self.steps, self.done = steps, done

    def __len__(self) -> int:
        return self.steps


def step_of(
    steps: int, done: int, optimiser: Optimizer | None = None, counts: bool = True
) -> SimpleNamespace:
    """A training strategy after ``done`` of ``steps``, whose last one ``counts`` or was left out."""
    return SimpleNamespace(dataloader=Batches(steps, done), optimizer=optimiser, counts=counts)
