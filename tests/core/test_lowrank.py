"""The low-rank map: its formula, its exactness property, its merge, its file form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from cl_complora.delta import TaskDelta, parse_rows, row_key
from cl_complora.lowrank import AdaptedLinear, LowRankBlock, Side, low_rank_sum
from cl_complora.subspace import Keep, principal


def block_in_complement(w: torch.Tensor, k: int, rank: int = 2, **options) -> LowRankBlock:
    split = principal(w, Keep("number", k))
    return LowRankBlock(*w.shape, rank, output=Side(split.u_c), input=Side(split.v_c), **options)


def randomise(block: LowRankBlock) -> None:
    with torch.no_grad():
        block.A.normal_()
        block.B.normal_()


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 12), st.integers(4, 12), st.integers(1, 3), st.integers(0, 1000))
def test_the_protected_triples_survive_any_factors(out, into, k, seed):
    torch.manual_seed(seed)
    w = torch.randn(out, into)
    block = block_in_complement(w, k)
    randomise(block)
    b, a = block.factors()
    merged, split = w + b @ a, principal(w, Keep("number", k))
    scale = 1e-5 * float(torch.linalg.matrix_norm(merged))
    assert float(torch.linalg.matrix_norm(merged @ split.v_k - split.u_k * split.sigma[:k])) <= scale
    assert (
        float(torch.linalg.matrix_norm(split.u_k.mT @ merged - split.sigma[:k, None] * split.v_k.mT)) <= scale
    )


def test_it_is_the_formula():
    torch.manual_seed(0)
    w = torch.randn(7, 5)
    block = block_in_complement(w, 2, scaling=0.7)
    randomise(block)
    split = principal(w, Keep("number", 2))
    expected = 0.7 * split.u_c @ block.B @ block.A @ split.v_c.mT
    b, a = block.factors()
    assert b.shape == (7, 2) and a.shape == (2, 5)
    assert torch.allclose(b @ a, expected, atol=1e-6)


def test_reduced_and_projector_forms_span_the_same_updates():
    torch.manual_seed(0)
    w = torch.randn(7, 5)
    split = principal(w, Keep("number", 2))
    reduced = block_in_complement(w, 2)
    projector = LowRankBlock(7, 5, 2, output=Side(split.u_k, False), input=Side(split.v_k, False))
    randomise(reduced)
    with torch.no_grad():
        projector.A.copy_(reduced.A @ split.v_c.mT)
        projector.B.copy_(split.u_c @ reduced.B)
    for one, other in zip(reduced.factors(), projector.factors(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_the_reduced_form_keeps_loras_scale_and_the_projector_form_does_not():
    """The trap of DESIGN: a projected Kaiming init is smaller by (d − k)/d."""
    d, k = 400, 300
    w = torch.randn(d, d)
    split = principal(w, Keep("number", k))
    generator = torch.Generator().manual_seed(0)
    plain = LowRankBlock(d, d, 50, generator=generator)
    reduced = LowRankBlock(d, d, 50, input=Side(split.v_c), output=Side(split.u_c), generator=generator)
    projected = LowRankBlock(d, d, 50, input=Side(split.v_k, False), generator=generator)
    norms = [float(b.factors()[1].square().sum(1).mean()) for b in (plain, reduced, projected)]
    assert norms[1] == pytest.approx(norms[0], rel=0.1)
    assert norms[2] == pytest.approx(norms[0] * (d - k) / d, rel=0.1)


def test_it_starts_at_zero_and_both_factors_learn():
    torch.manual_seed(0)
    layer = AdaptedLinear(nn.Linear(5, 7))
    layer.requires_grad_(False)
    x = torch.randn(3, 5)
    before = layer(x)
    block = block_in_complement(layer.weight, 2)
    layer.adapters.attach("other", slice(0, 7), block)
    assert torch.equal(layer(x), before)
    with torch.no_grad():
        block.B.normal_()
    layer(x).square().sum().backward()
    assert block.A.grad.abs().sum() > 0 and block.B.grad.abs().sum() > 0
    assert layer.weight.grad is None


def test_stacked_blocks_equal_separate_products():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6)
    blocks = [(slice(i, i + 4), LowRankBlock(4, 6, 2 + i // 4)) for i in (0, 8)]
    for _, block in blocks:
        randomise(block)
    total = low_rank_sum(x, 14, blocks, training=False)
    expected = torch.zeros(2, 3, 14)
    for rows, block in blocks:
        b, a = block.factors()
        expected[..., rows] += F.linear(F.linear(x, a), b)
    assert torch.allclose(total, expected, atol=1e-6)


def test_merging_gives_the_adapted_output():
    torch.manual_seed(0)
    layer = AdaptedLinear(nn.Linear(6, 4))
    block = block_in_complement(layer.weight, 1)
    randomise(block)
    layer.adapters.attach("other", slice(0, 4), block)
    x = torch.randn(5, 6)
    adapted = layer(x)
    layer.adapters.detach("other")
    b, a = block.factors()
    TaskDelta({row_key("weight", slice(0, 4)): (b.detach(), a.detach())}).add_to(
        dict(layer.named_parameters())
    )
    assert torch.allclose(layer(x), adapted, atol=1e-5)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    layer = AdaptedLinear(nn.Linear(50, 4))
    block = LowRankBlock(4, 50, 2, dropout=0.5)
    randomise(block)
    layer.adapters.attach("other", slice(0, 4), block)
    x = torch.randn(5, 50)
    assert not torch.allclose(layer.train()(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


def test_rank_zero_is_refused():
    with pytest.raises(ValueError, match="rank"):
        LowRankBlock(4, 4, 0)


def test_deltas_survive_their_file_form():
    delta = TaskDelta({"w[0:2]": (torch.randn(2, 1), torch.randn(1, 3))}, {"bias": torch.randn(4)})
    again = TaskDelta.from_tensors(delta.tensors())
    w, bias = torch.zeros(4, 3), torch.zeros(4)
    again.add_to({"w": w, "bias": bias})
    assert torch.equal(w[:2], delta.factors["w[0:2]"][0] @ delta.factors["w[0:2]"][1]) and not w[2:].any()
    assert torch.equal(bias, delta.dense["bias"])
    assert again.norm() == pytest.approx(float((w.square().sum() + bias.square().sum()).sqrt()), rel=1e-5)


@pytest.mark.parametrize(
    "flat", [{"w[0:1].B": torch.zeros(1, 1)}, {"w[0:1].A": torch.zeros(1, 1)}, {"x.C": torch.zeros(1)}]
)
def test_damaged_delta_files_are_refused(flat):
    with pytest.raises(ValueError):
        TaskDelta.from_tensors(flat)


def test_deltas_of_another_model_are_refused():
    delta = TaskDelta({"w[0:2]": (torch.zeros(2, 1), torch.zeros(1, 3))})
    with pytest.raises(KeyError, match="'w'"):
        delta.add_to({})
    with pytest.raises(ValueError, match="shape"):
        delta.add_to({"w": torch.zeros(4, 5)})


def test_row_keys():
    assert parse_rows(row_key("a.b", slice(3, 9))) == ("a.b", slice(3, 9))
    for bad in ("a.b", "a[1:]", "a[x:2]", "[1:2]x"):
        with pytest.raises(ValueError):
            parse_rows(bad)
