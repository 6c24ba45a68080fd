"""Tip-Adapter's search: the weight and sharpness of a cache that get most images right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Of the logits of several α at a time.
MOST_NUMBERS = 2**24


@dataclass(frozen=True)
class Asked:
    """Images, and what texts and keys say of them.

    Attributes:
        text_logits: ``N × K``.
        cosines: ``N × keys``; −∞ where an image may not see a key.
        values: one-hot labels of the keys, ``keys × K``.
        labels: ``(N,)``.
    """

    text_logits: Tensor
    cosines: Tensor
    values: Tensor
    labels: Tensor

    def of(self, chosen: Tensor) -> Asked:
        """Some of the images."""
        return Asked(self.text_logits[chosen], self.cosines[chosen], self.values, self.labels[chosen])


def grid(most: float, steps: int) -> list[float]:
    """The authors' values from .1 on: i (most − .1)/steps + .1."""
    return [i * (most - 0.1) / steps + 0.1 for i in range(steps)]


def right_answers(asked: Asked, betas: Sequence[float], alphas: Sequence[float]) -> Tensor:
    """How many images are right by text logits + α exp(−β(1 − cosines)) values, ``β × α``."""
    weights = torch.tensor(alphas, dtype=asked.text_logits.dtype, device=asked.text_logits.device)
    most = max(1, MOST_NUMBERS // max(1, asked.text_logits.numel()))
    found = []
    for beta in betas:
        cached = (-beta * (1 - asked.cosines)).exp() @ asked.values
        logits = (asked.text_logits + alpha[:, None, None] * cached for alpha in weights.split(most))
        found.append(torch.cat([(one.argmax(2) == asked.labels).sum(1) for one in logits]))
    return torch.stack(found).cpu()


def best_of(
    rounds: Sequence[Asked], betas: Sequence[float], alphas: Sequence[float]
) -> tuple[tuple[float, float], int]:
    """(α, β) with most images of all rounds right, and how many; the first of equals, β in the outer loop as
    in the authors' search."""
    right = sum(right_answers(asked, betas, alphas) for asked in rounds)
    most = int(right.max())
    beta, alpha = (right == most).nonzero()[0].tolist()
    return (float(alphas[alpha]), float(betas[beta])), most
