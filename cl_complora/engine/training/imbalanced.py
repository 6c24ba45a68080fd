"""Losses for classes of uneven numbers of training images, as their authors' programs have them.

In all of them z is images × classes logits, y the labels and n the numbers of training images of every class
(of the label space of each image, where these differ). A class without training images, and what fills up
smaller label spaces, has n = 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def balanced_softmax(z: Tensor, y: Tensor, n: Tensor) -> Tensor:
    """CE(z + log π, y), π the classes' shares (Ren et al., NeurIPS 2020).

    The largest share is taken as 1, which changes no softmax: with equal shares nothing is added, and the
    result is cross-entropy's to the bit. A class with n = 0 takes no part.

    Args:
        z: images × classes.
        y: ``(images,)``.
        n: ``(classes,)`` or images × classes.
    """
    return F.cross_entropy(z + (n / n.amax(-1, keepdim=True)).to(z).log(), y)


def focal(z: Tensor, y: Tensor, gamma: float) -> Tensor:
    """Mean of −(1 − p_y)^γ log p_y (Lin et al., ICCV 2017), finite with a finite gradient at any scale."""
    logp = F.log_softmax(z, dim=1).gather(1, y[:, None]).squeeze(1)
    # 1 − p without cancellation; its power has no slope at 0 for γ < 1.
    rest = (-torch.expm1(logp)).clamp_min(torch.finfo(z.dtype).tiny)
    return -(rest**gamma * logp).mean()


def ldam(z: Tensor, y: Tensor, n: Tensor, margin: float, scale: Tensor | float) -> Tensor:
    """CE(z − scale · m_y e_y, y) with m_k = margin · (n_min / n_k)^¼ (Cao et al., NeurIPS 2019).

    Args:
        z, y, n: as for :func:`balanced_softmax`; z = scale · cosines, n > 0 for the labels that occur.
        margin: of the rarest class, in cosine.
        scale: of the logits.
    """
    n = n.expand(len(z), -1).to(z)
    rarest = torch.where(n > 0, n, torch.inf).amin(1)
    own = margin * (rarest / _own(n, y)) ** 0.25
    return F.cross_entropy(z - scale * own[:, None] * F.one_hot(y, z.shape[1]), y)


def class_weighted(z: Tensor, y: Tensor, n: Tensor, power: float = 1.0, beta: float | None = None) -> Tensor:
    """Σ w_y CE / Σ w_y with w = n^−power, or 1 / (1 − β^n) (Cui et al., CVPR 2019).

    In each label space Σ_k π_k w_k = 1, so that images of two spaces count alike on average.

    Args:
        z, y, n: as for :func:`ldam`.
        power, beta: of the weights.
    """
    n = n.expand(len(z), -1).to(z)
    there = torch.where(n > 0, n, 1.0)
    weights = there**-power if beta is None else 1.0 / -torch.expm1(there * math.log(beta))
    weights = weights / (n * weights / n.sum(1, keepdim=True)).sum(1, keepdim=True)
    own = _own(weights, y)
    return (own * F.cross_entropy(z, y, reduction="none")).sum() / own.sum()


def lade_regulariser(z: Tensor, y: Tensor, n: Tensor, remine: float) -> Tensor:
    """−Σ_k π_k (a_k − b_k − remine · b_k²) (Hong et al., CVPR 2021).

    a_k is the mean of z_ik over the batch's images of class k (0 where it has none), b_k = log of the mean
    over all its images of exp(z_ik) / (K π_k): how much larger a class's logits are on its own images.

    Args:
        z, y: as for :func:`balanced_softmax`, of one label space.
        n: ``(classes,)``; classes with n = 0 are left out.
        remine: weight of the square.
    """
    there = n > 0
    z, pi = z[:, there], (n[there] / n.sum()).to(z)
    own = F.one_hot(y, len(n))[:, there].to(z)
    a = (own * z).sum(0) / own.sum(0).clamp_min(1)
    b = torch.logsumexp(z, 0) - (pi * len(pi)).log() - math.log(len(z))
    return -(pi * (a - b - remine * b.square())).sum()


def _own(values: Tensor, y: Tensor) -> Tensor:
    return values.gather(1, y[:, None]).squeeze(1)
