"""Regularisers on what an image tower says of regions: DenseVLM's loss and CLIPSelf's, on a small stream.

Both hold the student's dense features, averaged over the cells of a grid, to something that the model before
the task says of them: which of a list of words they show, or what their crops look like.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from ...clip.classifier import ClipClassifier
from ...clip.dense import box_weights, crops, dense_fault, dense_map, grid_boxes, pooled
from ...clip.text import evaluating, lower_precision
from ...config.penalties import Crops, Regions
from ...data.labels import LabelSpace
from ...data.tasks import TaskData
from ..adapter import AdapterPlugin
from ..own_draws import OwnDraws
from ..regularisers import RegulariserPlugin
from .distillation import PreviousTexts


class RegionPlugin(OwnDraws, RegulariserPlugin, supports_distributed=False):
    """strength · a term of the cells of a grid that is drawn for every step, the same for its images."""

    purpose = "regions"

    def __init__(self, settings: Crops | Regions, adapter: AdapterPlugin, seed: int) -> None:
        super().__init__(seed)
        self.settings, self.adapter = settings, adapter

    @property
    def through_images(self) -> bool:
        """Yes: texts are the teacher's."""
        return True

    def fits(self, model: ClipClassifier) -> None:
        """As in the base class."""
        fault = dense_fault(model.clip.visual)
        if fault is not None:
            raise ValueError(f"needs a dense map of patches, but {fault}")

    def penalty(self, strategy) -> Tensor:
        """The term on the images of the batch."""
        model = strategy.model
        boxes = self._drawn().to(strategy.mb_x.device)
        images = model.normalise(strategy.mb_x)
        return self.settings.strength * self.term(model, images, boxes, strategy)

    @abstractmethod
    def term(self, model: ClipClassifier, images: Tensor, boxes: Tensor, strategy) -> Tensor:
        """Of normalised images and the boxes of a grid, K × 4."""

    def _drawn(self) -> Tensor:
        fewest, most = self.settings.grid
        rows, columns = torch.randint(fewest, most + 1, (2,), generator=self.generator).tolist()
        return grid_boxes(rows, columns)

    @contextmanager
    def _teacher(self, model: ClipClassifier) -> Iterator[None]:
        """Within, the model is the one before the task, and nothing has a gradient."""
        with torch.no_grad(), self.adapter.previous(), evaluating(model):
            yield


def region_features(model: ClipClassifier, images: Tensor, boxes: Tensor) -> Tensor:
    """``N · K × D`` unit features of boxes, image by image, from the dense map."""
    with lower_precision(model.clip, model.precision):
        dense = dense_map(model.clip.visual, images)
    found = pooled(dense, box_weights(boxes, dense.shape[-2:]))
    return F.normalize(found, dim=-1).flatten(0, 1)


class DenseRegionsPlugin(RegionPlugin, supports_distributed=False):
    """:func:`decoupled` between the model before the task and the one that is trained.

    Things are the classes of the task and of those before it, each with its first prompt; stuff is a list of
    words. Both models are compared with the teacher's texts, as the text side of DenseVLM stays as it is.
    """

    needs_classes = "takes the classes of tasks for the things that regions may show"

    def __init__(self, settings: Regions, adapter: AdapterPlugin, seed: int) -> None:
        super().__init__(settings, adapter, seed)
        self._texts = PreviousTexts()
        self.things: dict[str, str] = {}

    def before_training_exp(self, strategy, **kwargs) -> None:
        """Another experience, another teacher, and its classes among the things."""
        super().before_training_exp(strategy, **kwargs)
        self._texts.forget()
        for task in strategy.experience.parts:
            self.remember(task)

    def remember(self, task: TaskData) -> None:
        """Count the task's classes among the things, under the name that they had first."""
        space = task.train_space
        for name, texts in zip(space.class_names, space.prompts, strict=True):
            self.things.setdefault(name, texts[0])

    def vocabulary(self) -> LabelSpace:
        """Things, then the words for what is behind them, less those that are things."""
        words = [word for word in self.settings.background if word not in self.things]
        stuff = [self.settings.prompt.replace("{}", word) for word in words]
        prompts = tuple((text,) for text in [*self.things.values(), *stuff])
        return LabelSpace((*self.things, *words), prompts)

    def term(self, model: ClipClassifier, images: Tensor, boxes: Tensor, strategy) -> Tensor:
        """As in the base class."""
        with self._teacher(model):
            texts = self._texts.of(model, self.vocabulary())
            teacher = region_features(model, images, boxes)
        student = region_features(model, images, boxes)
        things = len(self.things) if self.settings.decouple else 0
        return decoupled(
            student, teacher, texts, texts, things, self.settings.scale, self.settings.confidence
        )


class CropsPlugin(RegionPlugin, supports_distributed=False):
    """CLIPSelf's loss: the mean over regions of 1 − the cosine between a region's dense feature and the class
    token's feature of its crop, as the model before the task has it."""

    def term(self, model: ClipClassifier, images: Tensor, boxes: Tensor, strategy) -> Tensor:
        """As in the base class."""
        with self._teacher(model):
            shown = crops(images.float(), boxes.tolist())
            teacher = model.image_features(shown).unflatten(0, (len(boxes), len(images)))
        student = region_features(model, images, boxes)
        return (1 - (student * teacher.transpose(0, 1).flatten(0, 1)).sum(1)).mean()


def decoupled(
    student: Tensor,
    teacher: Tensor,
    student_texts: Tensor,
    teacher_texts: Tensor,
    things: int,
    scale: float = 100.0,
    confidence: float = 0.3,
) -> Tensor:
    """DenseVLM's loss (arXiv 2412.06244, its code): KL(teacher ‖ student) of what regions show.

    A region counts where the teacher's largest probability over all words is above ``confidence``; the word
    is its label. Regions of things are compared over the things alone, those of stuff over all words; each
    kind is the mean over its regions, and the two are added. 0 where no region counts (NaN in the authors'
    code).

    Args:
        student, teacher: ``R × D`` unit features of the same regions, each in its own model's space.
        student_texts, teacher_texts: features of the words, things first.
        things: how many of them.
        scale: of both models' cosines.
        confidence: see above.
    """
    told = scale * teacher.detach() @ teacher_texts.detach().mT
    answered = scale * student @ student_texts.mT
    sure, label = told.softmax(1).max(1)
    loss = answered.new_zeros(())
    for kept, width in (
        ((sure > confidence) & (label < things), things),
        ((sure > confidence) & (label >= things), told.shape[1]),
    ):
        if bool(kept.any()):
            own, theirs = answered[kept, :width], told[kept, :width]
            loss = loss + F.kl_div(own.log_softmax(1), theirs.softmax(1), reduction="batchmean")
    return loss
