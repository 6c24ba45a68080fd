"""``training.loss``: from the mini-batch of a training step to its loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...config.losses import BalancedSoftmax, ClassWeighted, Focal, Lade, Ldam, Loss
from . import imbalanced
from .contrastive import contrastive


@dataclass(frozen=True)
class Answered:
    """A batch's logits and what a loss may ask about them.

    Attributes:
        logits: images × classes of the largest label space; smaller ones are filled up with the smallest
            number.
        labels: ``(images,)``, within the label space of each.
        of: ``(images,)``, which of the label spaces.
        counts: training images of every class, one tensor for each label space.
        scale: logits / cosines.
        smoothing: of labels, which only cross-entropy knows.
    """

    logits: Tensor
    labels: Tensor
    of: Tensor
    counts: Sequence[Tensor]
    scale: Tensor
    smoothing: float = 0.0

    @property
    def rows(self) -> Tensor:
        """Counts of the label space of each image: images × classes, 0 where it is filled up."""
        width = self.logits.shape[1]
        whole = torch.stack([F.pad(n, (0, width - len(n))) for n in self.counts])
        return whole.to(self.logits.device)[self.of]

    def over_spaces(self, loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """Mean over images of a loss of (logits, labels, counts) that is taken in each label space apart."""
        losses = []
        for index, n in enumerate(self.counts):
            members = self.of == index
            if bool(members.any()):
                found = loss(self.logits[members, : len(n)], self.labels[members], n.to(self.logits.device))
                losses.append(members.sum() / len(self.labels) * found)
        return torch.stack(losses).sum()


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy; where label spaces differ in size, smoothing spreads over each image's own classes."""
    if smoothing == 0.0:
        return F.cross_entropy(logits, labels)
    logp = F.log_softmax(logits, dim=1)
    real = logits > torch.finfo(logits.dtype).min
    uniform = torch.where(real, logp, 0.0).sum(1) / real.sum(1)
    picked = logp.gather(1, labels[:, None]).squeeze(1)
    return -((1 - smoothing) * picked + smoothing * uniform).mean()


def _balanced_softmax(settings: BalancedSoftmax, batch: Answered) -> Tensor:
    return imbalanced.balanced_softmax(batch.logits, batch.labels, batch.rows)


def _focal(settings: Focal, batch: Answered) -> Tensor:
    return imbalanced.focal(batch.logits, batch.labels, settings.gamma)


def _ldam(settings: Ldam, batch: Answered) -> Tensor:
    return imbalanced.ldam(batch.logits, batch.labels, batch.rows, settings.margin, batch.scale)


def _class_weighted(settings: ClassWeighted, batch: Answered) -> Tensor:
    return imbalanced.class_weighted(batch.logits, batch.labels, batch.rows, settings.power, settings.beta)


def _lade(settings: Lade, batch: Answered) -> Tensor:
    regulariser = batch.over_spaces(lambda z, y, n: imbalanced.lade_regulariser(z, y, n, settings.remine))
    return imbalanced.balanced_softmax(batch.logits, batch.labels, batch.rows) + settings.weight * regulariser


_LOSSES: dict[str, Callable[..., Tensor]] = {
    "classes": lambda settings, batch: smoothed_cross_entropy(batch.logits, batch.labels, batch.smoothing),
    "batch": lambda settings, batch: batch.over_spaces(lambda z, y, n: contrastive(z, y)),
    "balanced-softmax": _balanced_softmax,
    "focal": _focal,
    "ldam": _ldam,
    "class-weighted": _class_weighted,
    "lade": _lade,
}


def training_loss(settings: Loss, batch: Answered) -> Tensor:
    """The loss of a training step.

    Args:
        settings: of ``training.loss``.
        batch: what was answered.
    """
    return _LOSSES[settings.kind](settings, batch)
