"""Logistic regression on a device: scikit-learn's objective, and what it answers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cl_complora.config.heads import LinearProbe
from cl_complora.engine.fitting import linear_probe, logistic
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
    return float(found.losses(x, y).mean()) + float(weight.square().sum()) / (2 * c * len(y))


@pytest.mark.parametrize("c", [0.316, 10.0, 316.0])
def test_both_solvers_reach_the_same_minimum(c):
    x, y = shots()
    theirs, ours = (kind.fitted(c, x, y, 5) for kind in (ScikitLearn, OnDevice))
    lowest = objective(c, theirs, x, y)
    assert abs(objective(c, ours, x, y) - lowest) < 1e-3 * lowest
    new, labels = shots(of_each=4)
    sums = [float(one.losses(new, labels).sum()) for one in (ours, theirs)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-2)
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


def uneven() -> tuple[torch.Tensor, torch.Tensor]:
    """12, 6, 3 … images of a class."""
    x, y = shots(of_each=12)
    kept = torch.cat([torch.where(y == k)[0][: max(12 >> k, 2)] for k in range(5)])
    return x[kept], y[kept]


def test_a_balanced_probe_counts_classes_alike():
    from sklearn.linear_model import LogisticRegression
    from test_heads import shots_from

    x, y = uneven()
    texts = F.normalize(torch.randn(5, 12, generator=torch.Generator().manual_seed(1)), dim=1)
    heads = [
        linear_probe.LinearProbeFitting(
            LinearProbe(kind="linear-probe", c=[10.0], balanced=balanced), 0, False
        )
        .fit(shots_from(x, y, texts), None)
        .head
        for balanced in (True, False)
    ]
    for head, weights in zip(heads, ("balanced", None), strict=True):
        theirs = LogisticRegression(C=10.0, max_iter=1000, class_weight=weights).fit(x.numpy(), y.numpy())
        torch.testing.assert_close(head.weight.numpy(), theirs.coef_, atol=2e-3, rtol=0, check_dtype=False)
    assert not torch.allclose(heads[0].weight, heads[1].weight, atol=1e-2)


def test_with_even_shots_a_balanced_probe_has_the_same_bits():
    from test_heads import shots_from

    x, y = shots()
    texts = torch.eye(5, 12)
    found = [
        linear_probe.LinearProbeFitting(LinearProbe(kind="linear-probe", balanced=balanced), 0, False).fit(
            shots_from(x, y, texts), None
        )
        for balanced in (True, False)
    ]
    assert torch.equal(found[0].head.weight, found[1].head.weight) and found[0].told == found[1].told


def test_both_solvers_weigh_alike():
    x, y = uneven()
    weights = (len(y) / (5 * y.bincount().double()))[y]
    theirs, ours = (kind.fitted(10.0, x, y, 5, weights=weights) for kind in (ScikitLearn, OnDevice))
    torch.testing.assert_close(ours.losses(x, y), theirs.losses(x, y), atol=1e-2, rtol=0)
    plain = OnDevice.fitted(10.0, x, y, 5)
    assert float((plain.losses(x, y) - theirs.losses(x, y)).abs().max()) > 0.05


@pytest.mark.parametrize(("large", "alone"), [(10**8, "blas"), (1, "openmp")])
def test_products_and_losses_never_both_have_several_threads(monkeypatch, large, alone):
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_info, threadpool_limits

    def counted() -> dict[str, set[int]]:
        pools = threadpool_info()
        return {
            kind: {pool["num_threads"] for pool in pools if pool["user_api"] == kind}
            for kind in ("blas", "openmp")
        }

    seen, fit = [], LogisticRegression.fit

    def watched(self, *arguments):
        seen.append(counted())
        return fit(self, *arguments)

    monkeypatch.setattr(LogisticRegression, "fit", watched)
    monkeypatch.setattr(logistic, "LARGE", large)
    with threadpool_limits(3):
        before = counted()
        ScikitLearn.fitted(1.0, *shots(), 5)
        assert counted() == before == {"blas": {3}, "openmp": {3}}
    assert seen == [before | {alone: {1}}]
