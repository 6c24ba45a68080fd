"""Kept features carried over to towers that have moved: the map, and that heads are fitted to what it
gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional as F

from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.heads import LinearProbe
from cl_complora.engine.fitting import fitting
from cl_complora.engine.fitting.drift import drift_of
from cl_complora.engine.fitting.fitting import KeptShots
from cl_complora.engine.fitting.linear_probe import LinearProbeFitting
from cl_complora.errors import UserError
from cl_complora.run.stream import run


def features(count: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator), dim=1)


def turned(seed: int, width: int) -> torch.Tensor:
    """A rotation."""
    return torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(seed)))[0]


@given(st.integers(0, 1000), st.integers(2, 12))
def test_a_rotation_that_the_images_determine_is_found(seed, width):
    before, rotation = features(3 * width, width, seed), turned(seed + 1, width)
    assume(not torch.allclose(rotation, rotation.mT, atol=0.1))  # its own inverse
    kept = features(7, width, seed + 2)
    carried = drift_of(before, before @ rotation, 1e-9)(kept)
    assert torch.allclose(carried, kept @ rotation, atol=1e-3)
    assert not torch.allclose(drift_of(before @ rotation, before, 1e-9)(kept), kept @ rotation, atol=1e-3)


@given(st.integers(0, 1000), st.integers(2, 8), st.integers(1, 12), st.floats(1e-3, 10))
def test_the_map_is_the_ridge_regression_of_the_change(seed, width, count, strength):
    """Against the normal equations by gradient: at M the gradient of the objective is 0."""
    before, now = features(count, width, seed).double(), features(count, width, seed + 1).double()
    eye = torch.eye(width, dtype=torch.float64)
    # Rows of I + M up to their lengths, which the unit vectors of e_i + e_i M have lost.
    m = torch.zeros(width, width, dtype=torch.float64, requires_grad=True)
    solved = torch.linalg.lstsq(
        torch.cat([before, strength**0.5 * eye]), torch.cat([now - before, torch.zeros_like(eye)])
    ).solution
    m.data.copy_(solved)
    loss = (now - before - before @ m).square().sum() + strength * m.square().sum()
    (gradient,) = torch.autograd.grad(loss, m)
    assert gradient.abs().max() < 1e-6
    carried = drift_of(before, now, strength)(eye)
    assert torch.allclose(carried, F.normalize(eye + solved, dim=1), atol=1e-6)


def test_towers_that_stand_still_and_a_strong_penalty_move_nothing():
    before, kept = features(5, 8, 0), features(6, 8, 1)
    assert torch.allclose(drift_of(before, before, 0.1)(kept), kept, atol=1e-6)
    assert torch.allclose(drift_of(before, features(5, 8, 2), 1e9)(kept), kept, atol=1e-6)


def test_validation_images_are_carried_too():
    kept = KeptShots()
    kept.features, kept.labels = features(4, 3, 0), torch.arange(4)
    kept.validation_features, kept.validation_labels = features(2, 3, 1), torch.arange(2)
    before = kept.features.clone(), kept.validation_features.clone()
    rotation = turned(2, 3)
    kept.carry(lambda features: features @ rotation)
    assert torch.allclose(kept.features, before[0] @ rotation)
    assert torch.allclose(kept.validation_features, before[1] @ rotation)


@pytest.fixture
def heads_of(tiny_scenario, tmp_path, monkeypatch):
    """Features that every head of a run was fitted to, task by task."""

    def heads_of(protocol: str, *settings: str, strategy: str = "complora", classes: str = "") -> list:
        fitted, fit_to = [], LinearProbeFitting.fit_to

        def watched(self, names, features, labels, shots):
            fitted.append(features.clone())
            return fit_to(self, names, features, labels, shots)

        monkeypatch.setattr(LinearProbeFitting, "fit_to", watched)
        same = ["tasks.1.classes=[red, yellow]"] if protocol == "domain-incremental" else []
        same += [classes] if classes else []
        scenario = load_scenario(str(tiny_scenario), [f"protocol={protocol}", *same])
        own = load_strategy(strategy, ["head.c=[10.0]", *settings])
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        run(scenario, own, out=out, evaluate=False, analysis=False)
        return fitted

    return heads_of


def test_a_task_of_all_classes_so_far_is_carried_over_as_any_other(heads_of):
    """The towers move in it, too; domains are streams of which every task is one."""
    again = "tasks.1.classes=[red, yellow, blue, green]"
    first, both = heads_of("class-incremental", *MOVING, classes=again)
    width = first.shape[1] // 2
    assert not torch.allclose(both[: len(first), :width], first[:, :width], atol=1e-3)


MOVING = ("training.steps=3", "optimiser.lr=0.05")


def test_one_head_for_all_is_fitted_to_features_that_were_carried_over(heads_of, monkeypatch):
    given_to = []
    monkeypatch.setattr(
        fitting, "drift_of", lambda *given: given_to.append([*given, drift_of(*given)]) or given_to[-1][3]
    )
    first, both = heads_of("class-incremental", *MOVING)
    ((before, now, strength, carried),) = given_to
    assert strength == LinearProbe(kind="linear-probe").drift
    width = now.shape[1]  # beside them stand those of the tower that stays
    assert torch.equal(both[: len(first)], carried(first)) and torch.equal(both[len(first) :, :width], now)
    assert torch.equal(both[: len(first), width:], first[:, width:]) and first.shape[1] == 2 * width
    assert not torch.allclose(before, now, atol=1e-3) and not torch.allclose(carried(first), first, atol=1e-3)


def test_without_it_kept_features_stay(heads_of):
    first, both = heads_of("class-incremental", "head.drift=null", *MOVING)
    assert torch.equal(both[: len(first)], first)


def test_heads_of_their_own_and_towers_that_stand_still_know_nothing_of_it(heads_of, monkeypatch):
    def never(*given):
        raise AssertionError

    monkeypatch.setattr(fitting, "drift_of", never)
    for protocol in ("task-incremental", "domain-incremental"):
        heads_of(protocol, *MOVING)
    first, both = heads_of("class-incremental", strategy="linear-probe")
    assert torch.equal(both[: len(first)], first)


def test_it_is_refused_where_nothing_moves():
    with pytest.raises(UserError, match="head.drift=0.2: has no effect with adapter kind none"):
        load_strategy("linear-probe", ["head.drift=0.2"])
