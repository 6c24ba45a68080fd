"""Numbers of a stream from its accuracy matrix; numpy only.

p[i][j] is the accuracy on task j after training task i; row 0 is the untouched model. i, j count 1..T.
All means are macro: every task counts once, however many images it has. Definitions: ZSCL (Zheng et al., ICCV
2023) for Transfer, Average and Last; forgetting takes the maximum over the rows from j on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

# Quantile of the normal distribution that 95 % intervals reach to.
_Z = 1.959964


def _rows(accuracy: ArrayLike, zero_shot_row: bool) -> np.ndarray:
    matrix = np.asarray(accuracy, dtype=float)
    expected = "(T+1, T) with the zero-shot row first" if zero_shot_row else "(T, T)"
    if matrix.ndim != 2 or matrix.shape[1] < 1 or matrix.shape[0] != matrix.shape[1] + zero_shot_row:
        raise ValueError(f"accuracy must have shape {expected}, got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("accuracy holds NaN or infinity: the stream is not finished or a value is missing")
    return matrix[1:] if zero_shot_row else matrix


def summarize(accuracy: ArrayLike, zero_shot_row: bool = True) -> dict[str, float]:
    """Transfer, Average, Last, forgetting and BWT of a finished stream.

    Args:
        accuracy: ``(T+1, T)`` matrix with the zero-shot row first (``(T, T)`` without it), in any unit.
        zero_shot_row: whether the first row is the untouched model.

    Returns:
        ``{"transfer", "average", "last", "forgetting", "bwt"}`` in the unit of the input. With one task there
        is nothing to transfer to and nothing to forget: those three are NaN.

    Raises:
        ValueError: for another shape or missing values.
    """
    p = _rows(accuracy, zero_shot_row)
    return {
        "transfer": _mean(transfer(accuracy, zero_shot_row)),
        "average": float(p.mean()),
        "last": float(p[-1].mean()),
        "forgetting": _mean(forgetting(accuracy, zero_shot_row)[:-1]),
        "bwt": _mean(backward_transfer(accuracy, zero_shot_row)[:-1]),
    }


def transfer(accuracy: ArrayLike, zero_shot_row: bool = True) -> list[float]:
    """Per task j ≥ 2: mean_{1≤i<j} p[i][j], the accuracy on it while it was still unseen."""
    p = _rows(accuracy, zero_shot_row)
    return [float(p[:j, j].mean()) for j in range(1, p.shape[1])]


def of_independent(rows: ArrayLike) -> dict[str, float]:
    """The keys of :func:`summarize` where every task started from the pretrained weights.

    There is one model a task: ``last`` is the mean accuracy of each on its own task, and what compares tasks
    along a stream is not defined.

    Args:
        rows: the first t+1 rows (zero-shot row first) of a (T+1, T) matrix.
    """
    own = np.diagonal(np.asarray(rows, dtype=float)[1:])
    undefined = dict.fromkeys(("transfer", "average", "last", "forgetting", "bwt"), float("nan"))
    return undefined | {"last": _mean(own.tolist())}


def forgetting(accuracy: ArrayLike, zero_shot_row: bool = True) -> list[float]:
    """Per task j: max_{i ≥ j} p[i][j] − p[T][j] (0 for the last task)."""
    p = _rows(accuracy, zero_shot_row)
    return [float(p[j:, j].max() - p[-1, j]) for j in range(p.shape[1])]


def backward_transfer(accuracy: ArrayLike, zero_shot_row: bool = True) -> list[float]:
    """Per task j: p[T][j] − p[j][j] (0 for the last task)."""
    p = _rows(accuracy, zero_shot_row)
    return [float(p[-1, j] - p[j, j]) for j in range(p.shape[1])]


def retention(values: Sequence[float]) -> float:
    """Accuracy on a zero-shot set after the last task minus before the first, in points.

    Args:
        values: fractions [before, after task 1, …, after task T].
    """
    return 100.0 * (float(values[-1]) - float(values[0]))


def mean_retention(values: Sequence[float]) -> float:
    """As :func:`retention` where every value after the first is of another model: their mean minus the
    first."""
    return 100.0 * (_mean(values[1:]) - float(values[0]))


def keeps(retention: float, floor: float) -> bool:
    """Whether a retention is at least a floor, both in points.

    A difference of two shares is seldom what its decimals say: (0.87 − 0.90) · 100 lies below −3.
    """
    return round(retention, 8) >= floor


def recall_at(ranks: ArrayLike, k: int) -> float:
    """R@k: share of queries whose right answer is among the first k.

    Args:
        ranks: place of the right answer to every query, from 1.
        k: how many answers are looked at.
    """
    return float((np.asarray(ranks) <= k).mean())


def average_precision(scores: ArrayLike, positive: ArrayLike) -> float:
    """Mean of the precision at every positive, from the highest score down: Σ_n P_n / (number of positives).

    Of images with one score the later one comes first, as in the evaluation of SPARC and of most multi-label
    code; what is no number comes last.

    Args:
        scores: ``(N,)``.
        positive: ``(N,)``, true for those that should come first.

    Returns:
        A fraction; NaN where nothing is positive.
    """
    values, right = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    if not right.any():
        return float("nan")
    values = np.where(np.isnan(values), -np.inf, values)
    right = right[np.argsort(values, kind="stable")[::-1]]
    return float((np.cumsum(right) / np.arange(1, len(right) + 1))[right].mean())


def mean_average_precision(scores: ArrayLike, positive: ArrayLike) -> float:
    """mAP: the mean of :func:`average_precision` over the classes that have a positive; NaN without any.

    A class without positives has no average precision, and is left out: neither 0 nor 1.

    Args:
        scores, positive: ``N × K``, an image a row and a class a column.
    """
    values, right = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    return _mean([average_precision(values[:, k], right[:, k]) for k in np.flatnonzero(right.any(0))])


def interval(accuracy: float, images: int) -> tuple[float, float]:
    """95 % Wilson score interval of an accuracy.

    Args:
        accuracy: fraction of ``images`` that is right.
        images: how many, at least 1.
    """
    z = _Z
    centre = (accuracy + z * z / (2 * images)) / (1 + z * z / images)
    # A file may call more than all of them right, of which there is no variance.
    variance = max(0.0, accuracy * (1 - accuracy)) / images
    half = z * (variance + z * z / (4 * images**2)) ** 0.5 / (1 + z * z / images)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class PairedChange:
    """Change of accuracy between two states that answered the same images.

    Attributes:
        lost: images that were right and are wrong.
        won: images that were wrong and are right.
        images: how many there are.
        change: (won − lost) / images, a fraction.
        low, high: its 95 % interval.
        p: two-sided exact p of McNemar's test.
    """

    lost: int
    won: int
    images: int
    change: float
    low: float
    high: float
    p: float


def paired_change(lost: int, won: int, images: int) -> PairedChange:
    """Change of accuracy on the same images, with its interval and test.

    Two intervals of one accuracy each, laid side by side, count what both states have in common as noise
    twice. Here only the images count whose answer changed: with p₁ = (lost + 1) / (n + 2) and p₂ = (won + 1)
    / (n + 2), the interval is p₂ − p₁ ± z √((p₁ + p₂ − (p₂ − p₁)²) / (n + 2)), the adjusted Wald interval of
    Bonett and Price (Journal of Educational and Behavioral Statistics 37, 2012). The test is McNemar's, the
    exact one: binomial with one half over the images that changed.

    Args:
        lost: images that were right and are wrong.
        won: images that were wrong and are right.
        images: all of them, at least 1.

    Raises:
        ValueError: where more have changed than there are.
    """
    if min(lost, won) < 0 or images < max(1, lost + won):
        raise ValueError(f"{lost} lost and {won} won cannot be of {images} images")
    centre, error = _adjusted(lost, won, images)
    low, high = max(-1.0, centre - _Z * error), min(1.0, centre + _Z * error)
    return PairedChange(lost, won, images, (won - lost) / images, low, high, _sign_test(lost, won))


def mean_change(changes: Sequence[PairedChange]) -> tuple[float, float, float]:
    """Macro mean of the changes on several tasks with its 95 % interval: (mean, low, high).

    The tasks are what they are and their images are drawn: the variances of :func:`paired_change` add up.

    Args:
        changes: one a task, at least one.
    """
    parts = [_adjusted(one.lost, one.won, one.images) for one in changes]
    centre = _mean([middle for middle, _ in parts])
    half = _Z * math.sqrt(sum(error**2 for _, error in parts)) / len(parts)
    return _mean([one.change for one in changes]), max(-1.0, centre - half), min(1.0, centre + half)


def _adjusted(lost: int, won: int, images: int) -> tuple[float, float]:
    """Centre and standard error of the interval of a paired change."""
    down, up = (lost + 1) / (images + 2), (won + 1) / (images + 2)
    return up - down, math.sqrt(max(0.0, up + down - (up - down) ** 2) / (images + 2))


def _sign_test(lost: int, won: int) -> float:
    """Two-sided exact p of so many changes one way and the other, each as likely."""
    changed, fewer = lost + won, min(lost, won)
    tail = ways = 1  # of changing none one way; whole numbers of thousands of bits, each made from the last
    for count in range(fewer):
        ways = ways * (changed - count) // (count + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**changed)


def so_far(rows: ArrayLike) -> dict[str, float]:
    """:func:`summarize` of the tasks trained so far, for a stream that is still going on.

    Args:
        rows: the first t+1 rows (zero-shot row first) of a (T+1, T) matrix; NaN where nothing was measured.

    Returns:
        The keys of :func:`summarize`; all NaN before the first task or where values are missing.
    """
    matrix = np.asarray(rows, dtype=float)
    trained = len(matrix) - 1
    if trained < 1 or not np.isfinite(matrix).all():
        return dict.fromkeys(("transfer", "average", "last", "forgetting", "bwt"), float("nan"))
    return summarize(matrix[:, :trained])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
