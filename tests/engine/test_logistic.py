"""Logistic regression on a device: scikit-learn's objective, and what it answers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cl_complora.config.heads import LinearProbe
from cl_complora.engine.fitting import linear_probe
from cl_complora.engine.fitting.logistic import OnDevice, ScikitLearn, solver_of


def shots(classes: int = 5, of_each: int = 6, width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit features of overlapping classes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(of_each)
    means = torch.randn(classes, width, generator=generator)
    features = means[labels] + 0.8 * torch.randn(len(labels), width, generator=generator)
    return F.normalize(features, dim=1), labels


def objective(c: float, found: ScikitLearn | OnDevice, x: torch.Tensor, y: torch.Tensor) -> float:
    """What both minimise."""
    weight, _ = found.coefficients()
    return found.loss(x, y) / len(y) + float(weight.square().sum()) / (2 * c * len(y))


@pytest.mark.parametrize("c", [0.316, 10.0, 316.0])
def test_both_solvers_reach_the_same_minimum(c):
    x, y = shots()
    theirs, ours = (kind.fitted(c, x, y, 5) for kind in (ScikitLearn, OnDevice))
    lowest = objective(c, theirs, x, y)
    assert abs(objective(c, ours, x, y) - lowest) < 1e-3 * lowest
    new, labels = shots(of_each=4)
    assert ours.loss(new, labels) == pytest.approx(theirs.loss(new, labels), rel=1e-2)
    wrong = OnDevice(torch.cat([-ours.both[:, :-1], ours.both[:, -1:]], dim=1))
    assert objective(c, wrong, x, y) > 2 * lowest


def test_the_gradient_vanishes_at_the_end():
    x, y = shots()
    both = OnDevice.fitted(10.0, x, y, 5).both.requires_grad_()
    logits = x.double() @ both[:, :-1].mT + both[:, -1]
    loss = F.cross_entropy(logits, y) + both[:, :-1].square().sum() / (2 * 10.0 * len(y))
    (gradient,) = torch.autograd.grad(loss, both)
    assert float(gradient.abs().max()) < 1e-3


def test_a_gpu_is_asked_where_there_is_much_to_compute():
    class Elsewhere(torch.Tensor):
        is_cuda = True

    few, many = torch.empty(10, 5), torch.empty(100_000, 50)
    assert solver_of(many, 100) is ScikitLearn
    assert solver_of(many.as_subclass(Elsewhere), 100) is OnDevice
    assert solver_of(few.as_subclass(Elsewhere), 100) is ScikitLearn


def test_it_goes_on_from_where_another_ended():
    x, y = shots()
    before = OnDevice.fitted(1.0, x, y, 5)
    kept = before.both.clone()
    on, whole = OnDevice.fitted(10.0, x, y, 5, before), OnDevice.fitted(10.0, x, y, 5)
    assert torch.equal(before.both, kept)
    assert objective(10.0, on, x, y) == pytest.approx(objective(10.0, whole, x, y), rel=1e-3)


@pytest.mark.parametrize("validated", [False, True])
def test_a_probe_chooses_the_same_c_with_either(monkeypatch, validated):
    from test_heads import shots_from

    x, y = shots()
    texts = F.normalize(torch.randn(5, 12, generator=torch.Generator().manual_seed(1)), dim=1)
    held_out = (x.flip(0), y.flip(0)) if validated else None
    asked = shots_from(x, y, texts, None, held_out)
    fitting = linear_probe.LinearProbeFitting(LinearProbe(kind="linear-probe"), 0, False)
    theirs = fitting.fit(asked, None)
    monkeypatch.setattr(linear_probe, "solver_of", lambda x, classes: OnDevice)
    ours = fitting.fit(asked, None)
    assert ours.told == theirs.told and ours.trained == theirs.trained
    assert ours.head.weight.dtype == theirs.head.weight.dtype == torch.float32
    logits = [x @ one.head.weight.mT + one.head.bias for one in (ours, theirs)]
    torch.testing.assert_close(logits[0].softmax(1), logits[1].softmax(1), atol=2e-2, rtol=0)
