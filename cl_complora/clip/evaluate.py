"""Answers of a classifier to images in memory; draws no random number and leaves the model as it was."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.labels import LabelSpace
from .classifier import ClipClassifier
from .heads.head import Head, answered
from .text import evaluating

# Images at a time; what is measured again later is measured in the same batches, for the same bits.
BATCH = 256


@torch.no_grad()
def image_features(classifier: ClipClassifier, pixels: Tensor, batch_size: int = BATCH) -> Tensor:
    """``N × D`` unit features of ``N × 3 × H × W`` uint8 images, on the classifier's device."""
    device = next(classifier.parameters()).device
    with evaluating(classifier):
        found = [
            classifier.image_features(batch.to(device)) for batch in pixels.split(batch_size) if len(batch)
        ]
    return torch.cat(found) if found else torch.empty(0, 0, device=device)


@torch.no_grad()
def answers(
    classifier: ClipClassifier,
    pixels: Tensor,
    space: LabelSpace,
    batch_size: int = BATCH,
    head: Head | None = None,
    features: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``(N,)`` predicted labels of ``N × 3 × H × W`` uint8 images and their softmax probabilities, on the
    CPU.

    Args:
        classifier: the model.
        pixels, space: images and the classes to choose among.
        batch_size: images at a time.
        head: what answers in place of the texts.
        features: the images' unit features, where they are known.
    """
    device = next(classifier.parameters()).device
    labels, shares = [torch.empty(0, dtype=torch.long)], [torch.empty(0)]
    known = None if features is None else features.split(batch_size)
    with evaluating(classifier):
        for place, batch in enumerate(pixels.split(batch_size)):
            if len(batch):  # nothing splits into one empty batch
                seen = classifier.image_features(batch.to(device)) if known is None else known[place]
                logits = answered(classifier, seen, space, head)
                label = logits.argmax(1)
                labels.append(label.cpu())
                shares.append(logits.softmax(1).gather(1, label[:, None]).squeeze(1).cpu())
    return torch.cat(labels), torch.cat(shares)


def predictions(
    classifier: ClipClassifier, pixels: Tensor, space: LabelSpace, batch_size: int = BATCH
) -> Tensor:
    """``(N,)`` predicted labels, as in :func:`answers`."""
    return answers(classifier, pixels, space, batch_size)[0]


def share_right(found: Tensor, labels: Tensor) -> float:
    """Share of predicted labels that are right, in 0..1."""
    return float((found == labels).double().mean())


def share_right_by_chance(found: Tensor, labels: Tensor, classes: int) -> float:
    """Share that would be right if predicted labels and labels had nothing to do with each other, in 0..1:
    Σ_c (share of predictions c) · (share of labels c)."""
    predicted, true = (torch.bincount(which, minlength=classes).double() for which in (found, labels))
    return float(predicted @ true) / max(1, len(labels)) ** 2


def accuracy(
    classifier: ClipClassifier,
    pixels: Tensor,
    labels: Tensor,
    space: LabelSpace,
    batch_size: int = BATCH,
    head: Head | None = None,
) -> float:
    """Share of images whose predicted label is right, in 0..1."""
    return share_right(answers(classifier, pixels, space, batch_size, head)[0], labels)
