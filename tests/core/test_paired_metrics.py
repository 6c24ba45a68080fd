"""Changes on the same images: interval and test against scipy and against what is known of them."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import stats

from cl_complora.metrics import mean_change, paired_change


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (5, 0), (0, 6), (32, 11), (7, 7), (400, 330)])
def test_p_is_that_of_the_exact_test_of_mcnemar(lost, won):
    expected = stats.binomtest(won, lost + won).pvalue if lost + won else 1.0
    assert paired_change(lost, won, 900).p == pytest.approx(expected, rel=1e-9)


def test_many_changes_take_no_time_and_are_counted_exactly():
    began = time.process_time()
    assert paired_change(4100, 3900, 8500).p == pytest.approx(stats.binomtest(3900, 8000).pvalue, rel=1e-9)
    assert time.process_time() - began < 3
    for lost, won in ((3, 9), (40, 61), (500, 431)):
        tail = sum(math.comb(lost + won, count) for count in range(min(lost, won) + 1))
        assert paired_change(lost, won, 1000).p == 2 * tail / 2 ** (lost + won)


def test_the_interval_is_near_the_bootstrap_over_images():
    images = np.repeat([-1.0, 1.0, 0.0], [32, 11, 857])
    sampled = stats.bootstrap((images,), np.mean, n_resamples=4000, rng=np.random.default_rng(0), batch=200)
    found = paired_change(32, 11, 900)
    assert found.change == pytest.approx(-21 / 900)
    assert found.low == pytest.approx(sampled.confidence_interval.low, abs=0.002)
    assert found.high == pytest.approx(sampled.confidence_interval.high, abs=0.002)


def test_it_is_narrower_than_two_intervals_side_by_side_and_turns_with_the_question():
    found, other = paired_change(32, 11, 900), paired_change(11, 32, 900)
    assert found.high < 0 and found.high - found.low < 0.035
    assert (found.low, found.high) == pytest.approx((-other.high, -other.low))


def test_it_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(2000):
        lost, won, _ = rng.multinomial(60, [0.12, 0.05, 0.83])
        found = paired_change(int(lost), int(won), 60)
        held += found.low <= -0.07 <= found.high
    assert 0.93 < held / 2000 < 0.985


def test_no_change_is_not_certainty_and_all_changed_stays_within_one():
    nothing, everything = paired_change(0, 0, 40), paired_change(3, 0, 3)
    assert nothing.low < 0 < nothing.high and nothing.p == 1.0
    assert everything.change == -1 and everything.low >= -1


def test_the_mean_of_one_is_itself_and_of_many_is_narrower():
    one = paired_change(12, 4, 200)
    assert mean_change([one]) == pytest.approx((one.change, one.low, one.high))
    mean, low, high = mean_change([one] * 4)
    assert mean == pytest.approx(one.change) and high - low == pytest.approx((one.high - one.low) / 2)


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_counts_that_cannot_be_are_refused(counts):
    with pytest.raises(ValueError, match="cannot be of"):
        paired_change(*counts)
