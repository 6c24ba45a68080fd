"""The loss of a batch as CLIP was trained: its images and texts find each other."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def contrastive(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """(CE(L, T) + CE(Lᵀ, T)) / 2 with L_ij the logit of image i with the class text of image j, and T_ij =
    1/n_{y_i} where both have one class, else 0.

    Args:
        logits: images × classes.
        labels: ``(images,)``.
        smoothing: share of T that is spread over all images of the batch, and over all texts.
    """
    pairs = logits[:, labels]
    same = (labels[:, None] == labels).to(pairs)
    targets = same / same.sum(1, keepdim=True)
    of_images = F.cross_entropy(pairs, targets, label_smoothing=smoothing)
    return (of_images + F.cross_entropy(pairs.mT, targets.mT, label_smoothing=smoothing)) / 2
