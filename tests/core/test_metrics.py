"""Metrics against published matrices and a reference written straight from the definitions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from builders.places import SHARED
from cl_complora import metrics

GOLDEN = SHARED / "reference" / "golden" / "mtil_order1.json"


def matrices():
    return st.integers(1, 7).flatmap(lambda t: arrays(float, (t + 1, t), elements=st.floats(0, 1)))


@settings(deadline=None)
@given(matrices())
def test_summary_is_the_definition(p):
    t = p.shape[1]
    found = metrics.summarize(p)
    assert found["last"] == pytest.approx(sum(p[t][j] for j in range(t)) / t)
    assert found["average"] == pytest.approx(
        sum(sum(p[i][j] for i in range(1, t + 1)) / t for j in range(t)) / t
    )
    if t == 1:
        assert np.isnan(found["transfer"]) and np.isnan(found["forgetting"]) and np.isnan(found["bwt"])
        return
    # In the 1-based terms of the definition: tasks j = 2..T, rows i = 1..j−1.
    transfer = [sum(p[i][j - 1] for i in range(1, j)) / (j - 1) for j in range(2, t + 1)]
    forgetting = [max(p[i][j - 1] for i in range(j, t + 1)) - p[t][j - 1] for j in range(1, t)]
    bwt = [p[t][j - 1] - p[j][j - 1] for j in range(1, t)]
    assert found["transfer"] == pytest.approx(sum(transfer) / len(transfer))
    assert found["forgetting"] == pytest.approx(sum(forgetting) / len(forgetting))
    assert found["bwt"] == pytest.approx(sum(bwt) / len(bwt))
    assert found["forgetting"] >= -found["bwt"] - 1e-12 and found["forgetting"] >= 0


@settings(deadline=None)
@given(matrices())
def test_without_the_zero_shot_row(p):
    assert metrics.summarize(p[1:], zero_shot_row=False) == pytest.approx(metrics.summarize(p), nan_ok=True)


def test_by_hand():
    p = [[0.1, 0.2, 0.3], [0.9, 0.4, 0.3], [0.7, 0.8, 0.5], [0.8, 0.6, 1.0]]
    assert metrics.summarize(p) == pytest.approx(
        {
            "transfer": (0.4 + (0.3 + 0.5) / 2) / 2,
            "average": 6.0 / 9,
            "last": 0.8,
            "forgetting": 0.15,
            "bwt": -0.15,
        }
    )
    assert metrics.forgetting(p) == pytest.approx([0.1, 0.2, 0])
    assert metrics.backward_transfer(p) == pytest.approx([-0.1, -0.2, 0])


def test_of_a_stream_that_goes_on():
    rows = [[0.1, 0.2, 0.3], [0.9, 0.4, 0.3], [0.7, 0.8, 0.5]]
    assert metrics.so_far(rows)["last"] == pytest.approx(0.75)
    assert np.isnan(metrics.so_far(rows[:1])["last"])
    assert np.isnan(metrics.so_far([[0.1, float("nan")], [0.2, 0.3]])["last"])


def test_retention_is_in_points():
    assert metrics.retention([0.5, 0.7, 0.45]) == pytest.approx(-5)


@pytest.mark.parametrize(("accuracy", "images"), [(0.5, 100), (1.0, 3), (7.0, 2**62), (-7.0, 1)])
def test_an_interval_is_within_all_and_nothing_whatever_a_file_says(accuracy, images):
    low, high = metrics.interval(accuracy, images)
    assert isinstance(low, float) and low >= 0 and high <= 1
    assert accuracy not in (0.5, 1.0) or low <= accuracy <= high + 1e-12


@pytest.mark.parametrize("bad", [[[1, 2]], [[1], [2], [3]], [1, 2], [[float("nan")], [1.0]], []])
def test_other_shapes_are_refused(bad):
    with pytest.raises(ValueError, match="accuracy"):
        metrics.summarize(bad)


@pytest.mark.skipif(
    not GOLDEN.exists(), reason="published matrices are not in this checkout's ../shared/reference/golden"
)
def test_published_matrices_give_the_published_numbers():
    runs = json.loads(GOLDEN.read_text())["runs"]
    assert runs
    for run in runs:
        found = metrics.summarize([run["zero_shot"], *run["accuracy"]])
        for key in ("transfer", "average", "last"):
            assert found[key] == pytest.approx(run[key], abs=0.06), (run["method"], key)
