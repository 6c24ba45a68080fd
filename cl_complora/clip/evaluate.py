"""Accuracy of a classifier on images in memory; draws no random number and leaves the model as it was."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.labels import LabelSpace
from .classifier import ClipClassifier
from .text import evaluating


@torch.no_grad()
def predictions(classifier: ClipClassifier, pixels: Tensor, space: LabelSpace, batch_size: int = 256) -> Tensor:
    """``(N,)`` predicted labels of ``N × 3 × H × W`` uint8 images, on the CPU."""
    device = next(classifier.parameters()).device
    with evaluating(classifier):
        batches = [batch for batch in pixels.split(batch_size) if len(batch)]  # nothing splits into one empty batch
        found = [classifier(batch.to(device), space).argmax(1).cpu() for batch in batches]
    return torch.cat(found) if found else torch.empty(0, dtype=torch.long)


def accuracy(
    classifier: ClipClassifier, pixels: Tensor, labels: Tensor, space: LabelSpace, batch_size: int = 256
) -> float:
    """Share of images whose predicted label is right, in 0..1."""
    return float((predictions(classifier, pixels, space, batch_size) == labels).double().mean())
