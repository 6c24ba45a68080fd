"""What `protect: updates` holds of an update: the directions of ΔW, and none of factors that have no part in
it."""

from __future__ import annotations

import pytest
import torch

from builders.models import tiny_clip
from cl_complora.clip.slots import open_slots
from cl_complora.config import load_strategy
from cl_complora.engine.build import build_adapter
from cl_complora.engine.constraints import Constraint, Subspaces
from cl_complora.subspace import Keep, orthonormal

RANK = 3


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def slot():
    return open_slots(tiny_clip())[0]


def free_after(slot, *updates: tuple[torch.Tensor, torch.Tensor], reduced: bool = True):
    """(output, input) side of a matrix for the task after some updates."""
    subspaces = Subspaces(
        [slot], Constraint(keep=Keep("energy", 0.3), updates=True, reduced=reduced), RANK, 0
    )
    subspaces.refresh(0)
    for b, a in updates:
        subspaces.remember(slot, b, a)
    return subspaces.sides(1)[0]


@pytest.mark.parametrize("reduced", [True, False])
@pytest.mark.parametrize("zero", ["column of B", "row of A", "negative zero"])
def test_a_rank_that_is_zero_protects_nothing(slot, zero, reduced):
    out, inputs = slot.weight.shape
    b, a = random(out, RANK), random(RANK, inputs, seed=1)
    kept = b[:, [0, 2]].clone(), a[[0, 2]].clone()
    if zero == "row of A":
        a[1] = 0.0
    else:
        b[:, 1] = 0.0 if zero == "column of B" else -0.0
    found, expected = free_after(slot, (b, a), reduced=reduced), free_after(slot, kept, reduced=reduced)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.basis, other.basis)


def test_a_matrix_that_did_not_change_protects_nothing(slot):
    out, inputs = slot.weight.shape
    untouched = torch.zeros(out, RANK), random(RANK, inputs)
    for one, other in zip(free_after(slot, untouched), free_after(slot), strict=True):
        assert torch.equal(one.basis, other.basis)


def test_every_rank_that_takes_part_is_protected_to_the_bit(slot):
    """Of plain factors nothing is left out: what they protect is the span of both, as it ever was."""
    out, inputs = slot.weight.shape
    b, a = random(out, RANK), random(RANK, inputs, seed=1)
    subspaces = Subspaces([slot], Constraint(keep=Keep("energy", 0.3), updates=True), RANK, 0)
    subspaces.refresh(0)
    subspaces.remember(slot, b, a)
    (held,) = subspaces._states.values()
    assert torch.equal(held.rows[0], orthonormal(a.mT)) and torch.equal(held.columns[0], orthonormal(b))


def test_matrices_that_no_booster_trained_stay_free():
    """XGBLoRA adapts a share of the blocks; of the others A is drawn and B stays zero."""
    model = tiny_clip()
    changes = ["adapter.between.share=0.5", "adapter.matrices=[q]", "adapter.subspace.select=complement"]
    changes += ["adapter.subspace.protect=[principal, updates]", "adapter.subspace.keep.energy=0.3"]
    plugin = build_adapter(load_strategy("xgblora", changes).value.adapter, 0)
    plugin.attach(model)
    trained = {name for name, block in plugin.blocks.items() if block.between.active}
    assert 0 < len(trained) < len(plugin.blocks)
    with torch.no_grad():
        for name in trained:
            plugin.blocks[name].B.normal_(generator=torch.Generator().manual_seed(2))
    before = {name: block.input_basis.shape[1] for name, block in plugin.blocks.items()}
    plugin.merge(model)
    plugin.attach(model)
    for name, block in plugin.blocks.items():
        if name not in trained:
            assert block.input_basis.shape[1] == before[name], name
        held = plugin.subspaces._states[name].rows
        assert len(held) == (name in trained)
