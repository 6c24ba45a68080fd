"""Retrieval with the two towers: of every image the texts, and of every text the images, by cosine; draws no
random number and leaves the model as it was."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .classifier import ClipClassifier
from .evaluate import BATCH
from .text import evaluating


@torch.no_grad()
def text_features(classifier: ClipClassifier, tokens: Tensor, batch_size: int = BATCH) -> Tensor:
    """``M × D`` unit features of ``M × context`` tokens, on the classifier's device."""
    device = next(classifier.parameters()).device
    with evaluating(classifier):
        found = [
            F.normalize(classifier.text.encode(batch.to(device)).float(), dim=-1)
            for batch in tokens.split(batch_size)
        ]
    return torch.cat(found)


def ranks(images: Tensor, texts: Tensor, owners: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Place of the right answer to every query, from 1: the rank of its best text for every image, of its
    image for every text.

    An image's best text has the rank 1 + the number of texts of other images that are as similar or more; a
    text's image, 1 + the number of other images that are. Ties count against, and so does what is no number.
    An image or text is found at k where its rank is at most k.

    Args:
        images: ``N × D`` unit features.
        texts: ``M × D`` unit features.
        owners: of every text, the place of its image; every image has one text at least.

    Returns:
        ``(N,)`` and ``(M,)`` int32, on the CPU.
    """
    owner = torch.as_tensor(owners, device=images.device)
    of_images, of_texts = [], []
    for start in range(0, len(images), BATCH):
        scores = images[start : start + BATCH] @ texts.mT
        own = owner == torch.arange(start, start + len(scores), device=owner.device)[:, None]
        best = scores.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
        of_images.append(1 + (~(scores < best) & ~own).sum(1))
    for start in range(0, len(texts), BATCH):
        scores = texts[start : start + BATCH] @ images.mT
        own = F.one_hot(owner[start : start + BATCH], len(images)).bool()
        right = scores[own][:, None]
        of_texts.append(1 + (~(scores < right) & ~own).sum(1))
    return torch.cat(of_images).int().cpu(), torch.cat(of_texts).int().cpu()
