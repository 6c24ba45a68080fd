"""Retention of two methods, compared on the same zero-shot images."""

from __future__ import annotations

import numpy as np
import pytest

from cl_complora.compare.by_image import difference_by_image
from cl_complora.metrics import paired_change


def kept(right: np.ndarray, name: str = "general", first: int = 0) -> dict:
    return {name: (f"{first} to {first + len(right)}", right.astype(bool))}


def one_lost(images: int, lost: int, won: int) -> tuple[np.ndarray, np.ndarray]:
    """Answers of a method and its reference."""
    ours, reference = np.ones(images), np.ones(images)
    ours[:lost], reference[lost : lost + won] = 0, 0
    return ours, reference


def test_one_seed_and_one_set_is_mcnemars_test():
    ours, reference = one_lost(1000, lost=32, won=11)
    found = difference_by_image([kept(ours)], [kept(reference)])
    expected = paired_change(32, 11, 1000)
    assert found.mean == pytest.approx(100 * expected.change) and found.p == expected.p
    assert found.test == "McNemar" and found.pairs == 1000 and found.verdict == "worse"
    assert (found.low, found.high) == pytest.approx((100 * expected.low, 100 * expected.high), abs=0.3)


def test_seeds_that_agree_tell_no_more_of_the_images_and_those_that_do_not_tell_less():
    ours, reference = one_lost(300, lost=30, won=8)
    alone = difference_by_image([kept(ours)], [kept(reference)])
    thrice = difference_by_image([kept(ours)] * 3, [kept(reference)] * 3)
    assert thrice.p == pytest.approx(alone.p, rel=0.5, abs=1e-3) and thrice.pairs == 300
    assert thrice.high - thrice.low == pytest.approx(alone.high - alone.low, rel=0.1)
    mixed = difference_by_image(
        [kept(ours), kept(ours), kept(reference)], [kept(reference), kept(reference), kept(ours)]
    )
    assert mixed.high - mixed.low > 1.5 * (alone.high - alone.low) and mixed.verdict == "not shown"


def test_sets_count_once_each_and_seeds_may_have_images_of_their_own():
    ours, reference = one_lost(40, lost=8, won=0)
    same = np.ones(400)
    pairs = [(kept(ours, first=100 * seed) | kept(same, "other")) for seed in range(2)]
    others = [kept(reference, first=100 * seed) | kept(same, "other") for seed in range(2)]
    found = difference_by_image(pairs, others)
    assert found.mean == pytest.approx(-100 * (8 / 40) / 2) and found.verdict == "worse"
    assert found.pairs == 2 * 40 + 400


def test_no_difference_is_none_at_any_number_of_seeds():
    right = np.random.default_rng(0).random(50) < 0.5
    for seeds in (1, 3):
        found = difference_by_image([kept(right)] * seeds, [kept(right)] * seeds)
        assert (found.mean, found.low, found.high, found.p, found.verdict) == (0, 0, 0, 1, "not shown")


def test_a_bound_at_zero_is_zero_not_what_rounding_leaves_of_its_sum():
    rng = np.random.default_rng(0)
    bounds = []
    for _ in range(40):
        ours, reference = ([kept(rng.random(20) < chance) for _ in range(5)] for chance in (0.8, 0.6))
        found = difference_by_image(ours, reference)
        bounds += [found.low, found.high]
    assert 0.0 in bounds
    assert all(bound == 0 or abs(bound) > 1e-3 for bound in bounds)


def test_chance_is_called_a_difference_no_more_often_than_it_may():
    rng = np.random.default_rng(1)
    called = 0
    for _ in range(60):
        one, other = ([kept(rng.random(80) < 0.6) for _ in range(2)] for _ in range(2))
        called += difference_by_image(one, other).verdict != "not shown"
    assert called <= 7


@pytest.mark.parametrize(
    ("ours", "reference"),
    [({}, {}), (kept(np.ones(4)), {}), (kept(np.ones(4)), kept(np.ones(4), first=1))],
)
def test_other_images_are_not_compared(ours, reference):
    assert difference_by_image([ours], [reference]) is None


def test_answers_of_another_number_are_not_paired():
    """Two files of results may say of one set that it had other images: one of them is damaged."""
    answers = np.ones(12)
    whole, cut = kept(answers), {"general": (kept(answers)["general"][0], answers[:9].astype(bool))}
    assert difference_by_image([whole], [whole]) is not None
    assert difference_by_image([whole], [cut]) is None and difference_by_image([cut], [whole]) is None
    assert difference_by_image([whole, cut], [whole, cut]).pairs == 21


def test_it_does_not_matter_which_method_is_the_reference():
    rng = np.random.default_rng(0)
    ours, reference = ([kept(rng.random(80) < share) for _ in range(3)] for share in (0.7, 0.5))
    one, other = difference_by_image(ours, reference), difference_by_image(reference, ours)
    assert one.mean == -other.mean and one.p == other.p
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)
