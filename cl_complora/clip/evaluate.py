"""Answers of a classifier to images in memory; draws no random number and leaves the model as it was."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.labels import LabelSpace
from .classifier import ClipClassifier
from .text import evaluating


@torch.no_grad()
def answers(
    classifier: ClipClassifier, pixels: Tensor, space: LabelSpace, batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    """``(N,)`` predicted labels of ``N × 3 × H × W`` uint8 images and their softmax probabilities, on the
    CPU."""
    device = next(classifier.parameters()).device
    labels, shares = [torch.empty(0, dtype=torch.long)], [torch.empty(0)]
    with evaluating(classifier):
        for batch in pixels.split(batch_size):
            if len(batch):  # nothing splits into one empty batch
                logits = classifier(batch.to(device), space)
                label = logits.argmax(1)
                labels.append(label.cpu())
                shares.append(logits.softmax(1).gather(1, label[:, None]).squeeze(1).cpu())
    return torch.cat(labels), torch.cat(shares)


def predictions(
    classifier: ClipClassifier, pixels: Tensor, space: LabelSpace, batch_size: int = 256
) -> Tensor:
    """``(N,)`` predicted labels, as in :func:`answers`."""
    return answers(classifier, pixels, space, batch_size)[0]


def share_right(found: Tensor, labels: Tensor) -> float:
    """Share of predicted labels that are right, in 0..1."""
    return float((found == labels).double().mean())


def accuracy(
    classifier: ClipClassifier, pixels: Tensor, labels: Tensor, space: LabelSpace, batch_size: int = 256
) -> float:
    """Share of images whose predicted label is right, in 0..1."""
    return share_right(predictions(classifier, pixels, space, batch_size), labels)
