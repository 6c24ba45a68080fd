"""Deltas: sums, multiples and the file form, whatever mixture of factors, rows and wholes they hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_complora.delta import TaskDelta

SHAPES = {"a.weight": (6, 4), "b.weight": (8, 3), "c.bias": (5,)}


def draw(generator: torch.Generator) -> TaskDelta:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    coin = torch.rand(3, generator=generator) < 0.5
    delta = TaskDelta()
    delta.factors["a.weight[2:6]"] = (normal(4, 2), normal(2, 4))
    if coin[0]:
        index = torch.randperm(8, generator=generator)[:3]
        delta.rows["b.weight"] = (index, normal(3, 3))
    elif coin[1]:
        delta.dense["b.weight"] = normal(8, 3)
    if coin[2]:
        delta.dense["c.bias"] = normal(5)
    return delta


def applied(*deltas: TaskDelta) -> dict[str, torch.Tensor]:
    weights = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    for delta in deltas:
        delta.add_to(weights)
    return weights


def same(one: dict, other: dict) -> bool:
    return all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


@given(st.integers(0, 2**31), st.floats(-2, 2))
@settings(max_examples=60, deadline=None)
def test_sums_and_multiples_act_like_their_parts(seed, factor):
    generator = torch.Generator().manual_seed(seed)
    one, other = draw(generator), draw(generator)
    assert same(applied(one.plus(other)), applied(one, other))
    assert same(applied(one.scaled(factor)), {k: factor * w for k, w in applied(one).items()})
    total = sum(float(w.double().square().sum()) for w in applied(one).values()) ** 0.5
    assert one.norm() == pytest.approx(total, rel=1e-4)
    back = TaskDelta.from_tensors(one.tensors())
    assert same(applied(back), applied(one)) and back.tensors().keys() == one.tensors().keys()


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
@pytest.mark.parametrize("rank", [2, 4, 9])
def test_a_shortened_update_is_the_same_with_no_more_ranks_than_it_can_have(shape, rank):
    generator = torch.Generator().manual_seed(rank)
    b = torch.randn(shape[0], rank, generator=generator)
    a = torch.randn(rank, shape[1], generator=generator)
    doubled = TaskDelta({"w": (torch.cat([b, b], 1), torch.cat([a, a]))})
    left, right = doubled.shortened().factors["w"]
    assert torch.allclose(left @ right, 2 * b @ a, atol=1e-5)
    assert left.shape[1] == right.shape[0] == min(rank, *shape)


def test_few_moved_rows_are_stored_as_rows():
    change = torch.zeros(10, 4)
    change[[1, 7]] = 1.0
    delta = TaskDelta.of_changes({"e": change, "w": torch.ones(3, 3), "b": torch.zeros(4)})
    assert delta.rows["e"][0].tolist() == [1, 7] and set(delta.dense) == {"w", "b"}
    weights = {"e": torch.zeros(10, 4), "w": torch.zeros(3, 3), "b": torch.zeros(4)}
    delta.add_to(weights)
    assert torch.equal(weights["e"], change)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="names row 9"):
        TaskDelta(rows={"w": (torch.tensor([9]), torch.zeros(1, 2))}).add_to({"w": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match="low-rank in one delta and whole"):
        TaskDelta(factors={"w[0:2]": (torch.zeros(2, 1), torch.zeros(1, 2))}).plus(
            TaskDelta(dense={"w": torch.ones(2, 2)})
        )
    with pytest.raises(ValueError, match="without w.rows"):
        TaskDelta.from_tensors({"w.index": torch.tensor([0])})
    with pytest.raises(ValueError, match="unexpected"):
        TaskDelta.from_tensors({"w.other": torch.tensor([0])})
