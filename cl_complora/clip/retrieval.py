"""Retrieval with the two towers: of every image the texts, and of every text the images, by cosine; draws no
random number and leaves the model as it was."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .classifier import ClipClassifier
from .text import evaluating

# Queries whose similarities to all answers are in memory at once.
QUERIES = 256


@torch.no_grad()
def text_features(classifier: ClipClassifier, tokens: Tensor) -> Tensor:
    """``M × D`` unit features of ``M × context`` tokens, on the classifier's device."""
    device = next(classifier.parameters()).device
    with evaluating(classifier):
        found = [
            F.normalize(classifier.text.encode(batch.to(device)).float(), dim=-1)
            for batch in tokens.split(classifier.batch_size)
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
    place = torch.arange(len(images), device=images.device)
    return _places(images, texts, place, owner), _places(texts, images, owner, place)


def _places(queries: Tensor, answers: Tensor, of_queries: Tensor, of_answers: Tensor) -> Tensor:
    """Rank of the best answer of its own image to every query, given whose image queries and answers are."""
    found = []
    for start in range(0, len(queries), QUERIES):
        scores = queries[start : start + QUERIES] @ answers.mT
        own = of_queries[start : start + QUERIES, None] == of_answers
        best = scores.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
        found.append(1 + (~(scores < best) & ~own).sum(1))
    return torch.cat(found).int().cpu()
