"""Numbers of a stream from its accuracy matrix; numpy only.

p[i][j] is the accuracy on task j after training task i; row 0 is the untouched model. i, j count 1..T.
All means are macro: every task counts once, however many images it has. Definitions: ZSCL (Zheng et al., ICCV
2023) for Transfer, Average and Last; forgetting takes the maximum over the rows from j on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


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


def interval(accuracy: float, images: int) -> tuple[float, float]:
    """95 % Wilson score interval of an accuracy.

    Args:
        accuracy: fraction of ``images`` that is right.
        images: how many, at least 1.
    """
    z = 1.959964
    centre = (accuracy + z * z / (2 * images)) / (1 + z * z / images)
    half = z * (accuracy * (1 - accuracy) / images + z * z / (4 * images**2)) ** 0.5 / (1 + z * z / images)
    return max(0.0, centre - half), min(1.0, centre + half)


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
