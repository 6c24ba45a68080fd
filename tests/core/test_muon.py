"""Muon: the iteration against the formula in 64 bits, and the steps against PyTorch's own."""

from __future__ import annotations

import math

import pytest
import torch

from cl_complora.muon import SCALES, Muon, orthogonalised


def by_the_formula(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X, on the singular values alone: σ ← aσ + bσ³ + cσ⁵."""
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ vh


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (12, 12), (1, 5)])
def test_the_iteration_is_the_formula_in_32_bits(shape):
    torch.manual_seed(0)
    matrix = torch.randn(*shape)
    found = orthogonalised(matrix)
    assert found.dtype == torch.float32 and found.shape == matrix.shape
    assert torch.allclose(found.double(), by_the_formula(matrix), atol=1e-4)
    values = torch.linalg.svdvals(found)
    assert 0.6 < float(values.min()) and float(values.max()) < 1.3


def test_sixteen_bits_are_computed_in_32_and_zeros_stay_zeros():
    assert orthogonalised(torch.randn(3, 4).bfloat16()).dtype == torch.float32
    assert not orthogonalised(torch.zeros(3, 4)).any()


@pytest.mark.parametrize("adjust", sorted(SCALES))
def test_steps_are_those_of_the_formula(adjust):
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.randn(8, 3))
    expected, average = p.detach().double().clone(), torch.zeros(8, 3, dtype=torch.float64)
    optimiser = Muon([p], lr=0.1, momentum=0.9, weight_decay=0.2, adjust=adjust)
    scale = {"match_rms_adamw": 0.2 * math.sqrt(8), "original": math.sqrt(8 / 3)}[adjust]
    for _ in range(4):
        p.grad = torch.randn(8, 3)
        average = 0.9 * average + 0.1 * p.grad.double()
        step = by_the_formula(0.1 * p.grad.double() + 0.9 * average)
        expected = (1 - 0.1 * 0.2) * expected - 0.1 * scale * step
        optimiser.step()
    assert torch.allclose(p.detach().double(), expected, atol=1e-4)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
@pytest.mark.parametrize("adjust", sorted(SCALES))
def test_steps_are_those_of_pytorch_but_for_its_sixteen_bits(adjust):
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(20, 12))
    theirs = torch.nn.Parameter(ours.detach().clone())
    pair = (
        Muon([ours], lr=0.02, weight_decay=0.1, adjust=adjust),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn=adjust),
    )
    start = ours.detach().clone()
    for _ in range(5):
        gradient = torch.randn(20, 12)
        for p, optimiser in zip((ours, theirs), pair, strict=True):
            p.grad = gradient.clone()
            optimiser.step()
    assert (ours - theirs).detach().norm() < 0.02 * (theirs - start).detach().norm()


def test_a_vector_is_refused_and_what_has_no_gradient_stays():
    with pytest.raises(ValueError, match=r"matrices only, got a parameter of shape \(3,\)"):
        Muon([torch.nn.Parameter(torch.zeros(3))])
    p = torch.nn.Parameter(torch.ones(2, 2))
    Muon([p], weight_decay=0.5).step()
    assert torch.equal(p.detach(), torch.ones(2, 2))
