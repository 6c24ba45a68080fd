"""Answers of a classifier to images in memory; draws no random number and leaves the model as it was."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..data.labels import LabelSpace
from .classifier import ClipClassifier
from .heads.head import Head, answered, features_for
from .on_device import batches_on
from .text import evaluating


@torch.no_grad()
def image_features(classifier: ClipClassifier, pixels: Tensor) -> Tensor:
    """``N × D`` unit features of ``N × 3 × H × W`` uint8 images, on the classifier's device."""
    return _in_batches(classifier, classifier.image_features, pixels)


def _in_batches(classifier: ClipClassifier, encode: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    device = next(classifier.parameters()).device
    with evaluating(classifier):
        found = [encode(batch) for batch in batches_on(device, pixels, classifier.batch_size)]
    return torch.cat(found) if found else torch.empty(0, 0, device=device)


def known_features(classifier: ClipClassifier, pixels: Tensor) -> Tensor:
    """:func:`image_features`, which of towers that are never touched may be kept from an earlier run."""
    compute = partial(image_features, classifier, pixels)
    return compute() if classifier.kept_features is None else classifier.kept_features(pixels, compute)


def untouched_features(classifier: ClipClassifier, pixels: Tensor) -> Tensor:
    """:func:`known_features` of the untouched tower beside the classifier's own."""
    compute = partial(_in_batches, classifier, classifier.untouched_features, pixels)
    kept = classifier.untouched.kept_features
    return compute() if kept is None else kept(pixels, compute)


class UntouchedFeatures:
    """What the untouched tower sees of some sets, which is asked once: whatever the model learns, it stays.

    Args:
        classifier: with that tower, where heads read it.
    """

    def __init__(self, classifier: ClipClassifier) -> None:
        self._classifier = classifier
        self._known: dict[str, Tensor] = {}

    def beside(self, features: Tensor, name: str, pixels: Tensor, head: Head | None) -> Tensor:
        """The features of a set as its head is given them: with those of the untouched tower, if it reads
        both."""
        if head is None or not head.reads_both:
            return features
        if name not in self._known:
            self._known[name] = untouched_features(self._classifier, pixels)
        return torch.cat([features, self._known[name]], 1)


def seen_features(classifier: ClipClassifier, pixels: Tensor) -> Tensor:
    """What heads are given of all images, as
    :meth:`~cl_complora.clip.classifier.ClipClassifier.seen` gives it of a batch."""
    now = known_features(classifier, pixels)
    if classifier.untouched is None:
        return now
    return torch.cat([now, untouched_features(classifier, pixels)], 1)


@torch.no_grad()
def answers(
    classifier: ClipClassifier,
    pixels: Tensor,
    space: LabelSpace,
    head: Head | None = None,
    features: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``(N,)`` predicted labels of ``N × 3 × H × W`` uint8 images and their softmax probabilities, on the
    CPU.

    Nothing waits for a GPU before all batches are asked for.

    Args:
        classifier: the model.
        pixels, space: images and the classes to choose among.
        head: what answers in place of the texts.
        features: what the head is given of the images, without a head their unit features, where they are
            known.
    """
    device = next(classifier.parameters()).device
    labels, shares = [], []
    with evaluating(classifier), classifier.text.unchanging():
        if features is None:
            encode = partial(features_for, classifier, head=head)
            batches = map(encode, batches_on(device, pixels, classifier.batch_size))
        else:
            batches = iter(features.split(classifier.batch_size) if len(features) else ())
        for seen in batches:
            logits = answered(classifier, seen, space, head)
            label = logits.argmax(1)
            labels.append(label)
            shares.append(logits.softmax(1).gather(1, label[:, None]).squeeze(1))
    if not labels:
        return torch.empty(0, dtype=torch.long), torch.empty(0)
    return torch.cat(labels).cpu(), torch.cat(shares).cpu()


def predictions(classifier: ClipClassifier, pixels: Tensor, space: LabelSpace) -> Tensor:
    """``(N,)`` predicted labels, as in :func:`answers`."""
    return answers(classifier, pixels, space)[0]


@torch.no_grad()
def share_changed(
    classifier: ClipClassifier,
    pixels: Tensor,
    space: LabelSpace,
    precision: str,
    head: Head | None = None,
) -> float:
    """Share of answers that are others when the towers compute in ``precision`` than in ``fp32``, in 0..1."""
    found = []
    for each in ("fp32", precision):
        with classifier.measured_in(each):
            found.append(answers(classifier, pixels, space, head)[0])
    return float((found[0] != found[1]).double().mean())


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
    head: Head | None = None,
) -> float:
    """Share of images whose predicted label is right, in 0..1."""
    return share_right(answers(classifier, pixels, space, head)[0], labels)
