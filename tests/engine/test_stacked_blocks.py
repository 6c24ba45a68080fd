"""Many blocks composed at once: what each composes by itself, whatever the sizes of their complements."""

from __future__ import annotations

import pytest
import torch

from cl_complora.engine.updates.stacked_blocks import StackedBlocks
from cl_complora.lowrank import LowRankBlock, Side, Start, low_rank_sum
from cl_complora.subspace import Keep, principal


def block(out: int, into: int, k: int | None, seed: int, scaling: float = 0.5, **options) -> LowRankBlock:
    """A block with random factors, in the complement of ``k`` triples of a random weight."""
    torch.manual_seed(seed)
    sides = {}
    if k is not None:
        split = principal(torch.randn(out, into), Keep("number", k))
        sides = {"output": Side(split.u_c), "input": Side(split.v_c)}
    made = LowRankBlock(out, into, 2, scaling, **sides, **options)
    with torch.no_grad():
        made.A.normal_()
        made.B.normal_()
    return made


def gradients(
    blocks: list[LowRankBlock], factors: list[tuple[torch.Tensor, torch.Tensor]]
) -> list[torch.Tensor]:
    """By A and B of a loss that weighs every entry of every ΔW differently."""
    loss = sum(
        ((b @ a) * torch.arange(b.shape[0] * a.shape[1]).view(b.shape[0], -1) / 7 + (b @ a) ** 2).sum()
        * (n + 1)
        for n, (b, a) in enumerate(factors)
    )
    return list(torch.autograd.grad(loss, [p for one in blocks for p in (one.A, one.B)]))


def check(blocks: list[LowRankBlock], together: int) -> None:
    """So many are composed at once; factors and gradients are those of the blocks by themselves."""
    alone = [tuple(factor.detach().clone() for factor in one.factors()) for one in blocks]
    wanted = gradients(blocks, [one.factors() for one in blocks])
    stacked = StackedBlocks(blocks)
    for one, (b, a) in zip(blocks, alone, strict=True):  # with views of the stacks as bases
        torch.testing.assert_close(one.factors(), (b, a))
    with stacked.composed():
        assert sum(one.ready is not None for one in blocks) == together
        found = [one.ready or one.factors() for one in blocks]
        torch.testing.assert_close([tuple(pair) for pair in found], alone)
        torch.testing.assert_close(gradients(blocks, found), wanted)
    assert all(one.ready is None for one in blocks)


def test_complements_of_one_size():
    check([block(7, 5, 2, seed) for seed in range(3)], together=3)


def test_complements_of_different_sizes_and_scales():
    check([block(7, 5, k, k, scaling=0.1 * (k + 1)) for k in (0, 1, 3, 4)], together=4)


def test_a_complement_of_nothing():
    check([block(6, 5, 5, 0), block(6, 5, 1, 1)], together=2)


def test_without_a_constraint():
    check([block(6, 5, None, seed) for seed in range(3)], together=3)


def test_shapes_are_stacked_apart():
    check([block(7, 5, 1, 0), block(7, 5, 2, 1), block(4, 5, 1, 2), block(4, 5, None, 3)], together=2)


@pytest.mark.parametrize(
    "options",
    [
        {"start": Start(b=torch.ones(7, 2))},
        {"between": torch.nn.Identity()},
        {"rescaled": torch.ones(7, 5)},
    ],
)
def test_blocks_that_compose_in_another_way_do_so_by_themselves(options):
    blocks = [block(7, 5, None, seed) for seed in range(2)]
    other = block(7, 5, None, 3)
    special = LowRankBlock(7, 5, 2, **options)
    stacked = StackedBlocks([*blocks, special, other])
    with stacked.composed():
        assert special.ready is None and all(one.ready is not None for one in (*blocks, other))


def test_projected_factors_are_left_alone():
    split = principal(torch.randn(7, 5), Keep("number", 2))
    made = [
        LowRankBlock(7, 5, 2, output=Side(split.u_k, False), input=Side(split.v_k, False)) for _ in range(2)
    ]
    with StackedBlocks(made).composed():
        assert all(one.ready is None for one in made)


def test_half_precision_rounds_the_composed_factors():
    blocks = [block(7, 5, 2, seed) for seed in range(2)]
    exact = [tuple(factor.bfloat16() for factor in one.factors()) for one in blocks]
    with StackedBlocks(blocks).composed(torch.bfloat16):
        torch.testing.assert_close([tuple(one.ready) for one in blocks], exact, rtol=1e-2, atol=1e-3)


def test_ready_factors_of_another_type_are_left_alone():
    """A pass in 32 bits between those in 16 composes for itself."""
    blocks = [block(7, 5, 2, seed) for seed in range(2)]
    x = torch.randn(3, 5)
    exact = x @ blocks[0].update().mT
    with StackedBlocks(blocks).composed(torch.bfloat16):
        torch.testing.assert_close(low_rank_sum(x, 7, [(slice(0, 7), blocks[0])], True), exact)
        with torch.autocast("cpu", torch.bfloat16):
            half = low_rank_sum(x, 7, [(slice(0, 7), blocks[0])], True)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=5e-2, atol=5e-2)


def test_other_blocks_or_sizes_are_noticed():
    blocks = [block(7, 5, None, seed) for seed in range(2)]
    stacked = StackedBlocks(blocks)
    assert stacked.holds(blocks)
    assert not stacked.holds(blocks[:1]) and not stacked.holds([blocks[0], block(7, 5, None, 1)])
    blocks[1].A = torch.nn.Parameter(torch.zeros(1, 5))
    blocks[1].B = torch.nn.Parameter(torch.zeros(7, 1))
    assert not stacked.holds(blocks)
