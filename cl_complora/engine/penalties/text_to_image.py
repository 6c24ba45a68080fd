"""The other half of CLIP's contrastive loss on class prompts: every text finds its images in the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...config.penalties import TextToImage
from ...data.tasks import TaskData
from ..adapter import AdapterPlugin
from ..regularisers import RegulariserPlugin
from .distillation import members_of


class TextToImagePlugin(RegulariserPlugin, supports_distributed=False):
    """CoDyRA's second loss (EMNLP Findings 2026, its code).

    With L the logits of the batch (images × classes), strength · mean over all class texts seen by now of

        −Σ_{i of that class} log softmax over the batch's images of L[·, class]

    The sum is not divided by the number of images. Texts of earlier tasks have no image in the batch: they
    give zero, and count in the mean.
    """

    needs_classes = "compares images with the class texts of all tasks"

    def __init__(self, settings: TextToImage, adapter: AdapterPlugin, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.seen: set[str] = set()

    def penalty(self, strategy) -> Tensor:
        """The term for a batch, from the logits that its own loss is of."""
        total, rows = strategy.mb_output.new_zeros(()), set(self.seen)
        for space, members in zip(strategy.spaces, members_of(strategy), strict=True):
            logits, labels = strategy.mb_output[members, : len(space)], strategy.mb_y[members]
            rows |= set(space.class_names)
            total = total + text_to_image(logits, labels)
        return self.settings.strength * total / len(rows)

    def after_training_exp(self, strategy, **kwargs) -> None:
        """This experience's classes are earlier ones from now on."""
        for task in strategy.experience.parts:
            self.remember(task)

    def remember(self, task: TaskData) -> None:
        """Count the task's classes."""
        self.seen |= set(task.train_space.class_names)


def text_to_image(logits: Tensor, labels: Tensor) -> Tensor:
    """−Σ_i log softmax over images of ``logits[:, y_i]`` at i, a sum over classes and their images.

    Args:
        logits: images × classes.
        labels: ``(images,)``.
    """
    if len(labels) == 0:
        return logits.new_zeros(())
    over_images = F.log_softmax(logits, dim=0)
    return -torch.gather(over_images, 1, labels[:, None]).sum()
