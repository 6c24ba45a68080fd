"""Captions of a training step: one text drawn for every picture, and CLIP's own loss on the pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...data.labels import LabelSpace
from .contrastive import contrastive
from .training_loss import Answered


def drawn_captions(
    texts: Sequence[Sequence[str]], generator: torch.Generator
) -> tuple[LabelSpace, list[int]]:
    """One text of every picture, and of every picture its place among the different ones that were drawn.

    Pictures whose texts are the same share a place: neither is wrong for the other.

    Args:
        texts: of every picture of a batch, one at least.
        generator: one number is drawn of it for each.
    """
    draws = torch.randint(0, 2**31, (len(texts),), generator=generator).tolist()
    chosen = [own[draw % len(own)] for own, draw in zip(texts, draws, strict=True)]
    places = {text: place for place, text in enumerate(dict.fromkeys(chosen))}
    return LabelSpace.of_texts(places), [places[text] for text in chosen]


def loss_with_captions(
    batch: Answered, captioned: Sequence[bool], of_classes: Callable[[Answered], Tensor]
) -> Tensor:
    """Mean over the images of a batch: of CLIP's loss where they have captions, of another one elsewhere.

    Args:
        batch: what was answered; for images with captions over the texts that were drawn for the batch.
        captioned: which of its label spaces are texts of the batch.
        of_classes: the loss of images that have classes.
    """
    loss = batch.logits.new_zeros(())
    rest = torch.ones_like(batch.labels, dtype=torch.bool)
    for index in (place for place, drawn in enumerate(captioned) if drawn):
        members = batch.of == index
        if bool(members.any()):
            width = int(batch.labels[members].max()) + 1
            pairs = contrastive(batch.logits[members, :width], batch.labels[members], batch.smoothing)
            loss = loss + members.sum() / len(members) * pairs
        rest &= ~members
    if bool(rest.any()):
        others = replace(batch, logits=batch.logits[rest], labels=batch.labels[rest], of=batch.of[rest])
        loss = loss + rest.sum() / len(rest) * of_classes(others)
    return loss
