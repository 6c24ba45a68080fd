"""The loss of a batch as CLIP was trained: its images and texts find each other."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def contrastive(logits: Tensor, labels: Tensor) -> Tensor:
    """(CE(L, T) + CE(Lᵀ, T)) / 2 with L_ij the logit of image i with the class text of image j, and T_ij =
    1/n_{y_i} where both have one class, else 0.

    Args:
        logits: images × classes.
        labels: ``(images,)``.
    """
    pairs = logits[:, labels]
    same = (labels[:, None] == labels).to(pairs)
    targets = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(pairs, targets) + F.cross_entropy(pairs.mT, targets.mT)) / 2
