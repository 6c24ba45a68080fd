"""How well scores tell members from non-members: the ROC curve, its area, and how sure both are.

A low score says "member". Every threshold between two different scores is a point of the curve; images of one
score enter together, so that ties are counted neither for nor against (a curve from which collinear points
were dropped understates the TPR at a small FPR).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 1000
# FPR of a threshold against the wanted one: both are quotients of small integers.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A figure and the 95 % bootstrap interval of it; all None where one of the groups is empty."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Separation:
    """How well scores tell members from non-members.

    Attributes:
        auc: area under the ROC curve: the chance that a member has the lower score (ties count half).
        tpr: share of the members found at the last threshold with an FPR of at most the wanted one.
        members, non_members: how many had a score.
    """

    auc: Estimate
    tpr: Estimate
    members: int
    non_members: int


def separation(
    members: ArrayLike, non_members: ArrayLike, fpr: float = 0.01, resamples: int = RESAMPLES, seed: int = 0
) -> Separation:
    """AUC and TPR at a small FPR, each with a percentile interval over resampled images.

    Args:
        members, non_members: scores, lower for members; NaN is left out.
        fpr: largest share of non-members that may be taken for members. With fewer than 1/fpr of them it
            allows none.
        resamples: of the bootstrap, which draws within each group.
        seed: of the bootstrap.
    """
    inside, outside = (_known(scores) for scores in (members, non_members))
    if not len(inside) or not len(outside):
        nothing = Estimate(None, None, None)
        return Separation(nothing, nothing, len(inside), len(outside))
    every = np.concatenate([inside, outside])
    order = np.argsort(every, kind="stable")
    # The last of every run of equal scores: all thresholds there are.
    ends = np.flatnonzero(np.append(np.diff(every[order]) != 0, True))
    draw = np.random.default_rng(seed)
    counts = np.ones((resamples + 1, len(every)))
    for group in (slice(0, len(inside)), slice(len(inside), None)):
        size = len(every[group])
        counts[1:, group] = draw.multinomial(size, np.full(size, 1 / size), size=resamples)
    found = np.where(np.arange(len(every)) < len(inside), counts, 0)[:, order].cumsum(1)[:, ends]
    wrong = np.where(np.arange(len(every)) < len(inside), 0, counts)[:, order].cumsum(1)[:, ends]
    start = np.zeros((len(counts), 1))
    true_rate = np.hstack([start, found / len(inside)])
    false_rate = np.hstack([start, wrong / len(outside)])
    auc = (np.diff(false_rate, axis=1) * (true_rate[:, 1:] + true_rate[:, :-1])).sum(1) / 2
    tpr = np.where(false_rate <= fpr + _ROUNDING, true_rate, 0).max(1)
    return Separation(_estimate(auc), _estimate(tpr), len(inside), len(outside))


def _known(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=float)
    return values[~np.isnan(values)]


def _estimate(values: NDArray[np.float64]) -> Estimate:
    """The first is the figure, the others are resampled."""
    low, high = np.percentile(values[1:], [2.5, 97.5]) if len(values) > 1 else (values[0], values[0])
    return Estimate(float(values[0]), float(low), float(high))
