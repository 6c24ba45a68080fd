"""Paired differences between two methods: how large, how sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from .. import metrics
from ..store.forms import DIRECTIONS

RESAMPLES = 10_000
LEVEL = 0.05
# Up to so many values with ties SciPy enumerates all signs; beyond it takes the normal approximation.
ENUMERATED = 13


@dataclass(frozen=True)
class Difference:
    """A method minus the reference.

    Attributes:
        mean: over all pairs.
        low, high: 95 % bootstrap interval of it.
        p: two-sided p of ``test``: Wilcoxon's signed-rank test, the sign test where there are fewer than six
            pairs, or those of :mod:`.by_image`; 1 where all pairs are equal.
        test: its name.
        pairs: how many pairs.
        verdict: ``better`` or ``worse`` where interval and test agree, ``not shown`` otherwise, ``too few
            pairs`` where no result could be significant.
    """

    mean: float
    low: float
    high: float
    p: float
    test: str
    pairs: int
    verdict: str


def difference(ours: ArrayLike, reference: ArrayLike, larger_is_better: bool = True) -> Difference:
    """Compare paired values.

    The bootstrap draws seeds and units (tasks, zero-shot sets) with replacement, both at once, because values
    of one seed, and of one task, belong together. The test takes all pairs as independent, which flatters it;
    a difference is therefore called only where the interval agrees.

    Args:
        ours, reference: ``(seeds, units)``, in the same order.
        larger_is_better: False for forgetting.
    """
    # Rounded, so that equal counts of images differ by zero and equal differences are ties.
    values = np.round(np.asarray(ours, dtype=float) - np.asarray(reference, dtype=float), 9)
    seeds, units = values.shape
    rng = np.random.default_rng(0)
    drawn_seeds = rng.integers(seeds, size=(RESAMPLES, seeds))
    drawn_units = rng.integers(units, size=(RESAMPLES, units))
    means = values[drawn_seeds[:, :, None], drawn_units[:, None, :]].mean((1, 2))
    low, high = interval(means)
    p, test = _test(values.ravel())
    mean = float(values.mean())
    return Difference(
        mean,
        low,
        high,
        p,
        test,
        values.size,
        verdict(mean, low, high, p, values.size, larger_is_better),
    )


def interval(means: np.ndarray) -> tuple[float, float]:
    """Bounds of 95 % of redrawn means.

    Rounded, so that a sum that cancels is zero, which is neither better nor worse, and not what its order or
    the rounding of its parts leaves.
    """
    low, high = np.round(np.quantile(means, [0.025, 0.975]), 8)
    return float(low), float(high)


def verdict(mean: float, low: float, high: float, p: float, pairs: int, larger_is_better: bool = True) -> str:
    """What may be said of a difference; see :class:`Difference`."""
    if 2.0 ** (1 - pairs) > LEVEL:
        return "too few pairs"
    if p < LEVEL and (low > 0 or high < 0):
        return "better" if (mean > 0) == larger_is_better else "worse"
    return "not shown"


def _test(values: np.ndarray) -> tuple[float, str]:
    from scipy import stats

    moved = values[values != 0]
    if len(moved) == 0:
        return 1.0, "sign test"
    if len(values) < 6:
        return float(stats.binomtest(int((moved > 0).sum()), len(moved)).pvalue), "sign test"
    return _signed_rank(moved), "Wilcoxon"


def _signed_rank(moved: np.ndarray) -> float:
    """p of ``scipy.stats.wilcoxon``, which for few values with ties goes through all signs one by one; here
    it is all at once."""
    from scipy import stats

    sizes = np.abs(moved)
    if len(moved) > ENUMERATED or len(np.unique(sizes)) == len(moved):
        return float(stats.wilcoxon(moved).pvalue)
    ranks = stats.rankdata(sizes)  # a sign changes no rank
    found = stats.permutation_test(
        (moved,),
        lambda signed, axis: ((signed > 0) * ranks).sum(axis),
        permutation_type="samples",
        vectorized=True,
        axis=-1,
    )
    return float(found.pvalue)


def per_unit(results: Sequence[dict], metric: str) -> np.ndarray:
    """``(seeds, units)`` values, in percent or points, whose mean over units is the metric of each seed.

    Args:
        results: results.json of every seed.
        metric: ``transfer``, ``average``, ``last``, ``forgetting``, ``learned`` (per task) or ``retention``
            (per zero-shot set), ``image_to_text`` or ``text_to_image`` (retention of R@1, per retrieval set),
            ``multi_label`` (retention of mAP, per multi-label set).
    """
    return np.array([_of(r, metric) for r in results], dtype=float)


def _of(results: dict, metric: str) -> list[float]:
    if results.get("independent") and metric not in ("learned", "retention", "multi_label", *DIRECTIONS):
        own = _VALUES["learned"](results)
        return own if metric == "last" else [float("nan")] * len(own)
    return _VALUES[metric](results)


def _matrix(results: dict) -> np.ndarray:
    return 100.0 * np.array(results["accuracy"], dtype=float)


def _transfer(results: dict) -> list[float]:
    if results["transfer"] is None:  # of a method that sees every task at once
        return [float("nan")] * (len(results["tasks"]) - 1)
    return metrics.transfer(_matrix(results))


def _of_retrieval(direction: str, results: dict) -> list[float]:
    return [both[direction] for both in results.get("retrieval_retention", {}).values()]


_VALUES = {
    "transfer": _transfer,
    "average": lambda r: _matrix(r)[1:].mean(0).tolist(),
    "last": lambda r: _matrix(r)[-1].tolist(),
    "forgetting": lambda r: metrics.forgetting(_matrix(r))[:-1],
    "learned": lambda r: np.diagonal(_matrix(r)[1:]).tolist(),
    "retention": lambda r: list(r["retention"].values()),
    "multi_label": lambda r: list(r.get("multi_label_retention", {}).values()),
    **{direction: partial(_of_retrieval, direction) for direction in DIRECTIONS},
}
