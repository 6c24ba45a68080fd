"""PRILoRA's ranks and pruning against figures of our own (its code could not be had), and formulas beside
them that must not pass."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from builders.golden import FORMS, agrees, golden, tensor
from builders.steps import step_of
from cl_complora.config.factors import Pruning
from cl_complora.engine.updates import complora
from cl_complora.engine.updates.complora import CompLoRAPlugin, rank_at
from cl_complora.engine.updates.pruning import PruningPlugin, least
from cl_complora.lowrank import AdaptedLinear, LowRankBlock, Side, Start


def pruning_of(block: LowRankBlock, width: int = 8, **settings) -> tuple[PruningPlugin, AdaptedLinear]:
    """A plugin for one matrix."""
    host = AdaptedLinear(nn.Linear(width, 4, bias=False))
    slot = SimpleNamespace(name="w", matrix="other", host=host)
    plugin = PruningPlugin(Pruning(**settings), SimpleNamespace(slots=[slot], blocks={"w": block}))
    plugin.before_training_exp(None)
    return plugin, host


def check_prilora(file: dict) -> None:
    for case in file["schedules"]:
        ends, deepest = (case["r_first"], case["r_last"]), case["layers"] - 1
        found = [complora.rank_at(*ends, layer, deepest) for layer in range(case["layers"])]
        assert found == case["rounded_half_up"] and sum(found) == case["sum_rounded"]
    given, out = file["pruning"]["inputs"], file["pruning"]["outputs"]
    block = LowRankBlock(4, 8, 3, start=Start(a=tensor(given["A"])))
    plugin, host = pruning_of(block, every=len(given["batches"]), share=0.5, memory=0.9)
    for done, x in enumerate(given["batches"], 1):
        plugin.before_forward(None)
        host(tensor(x).float())
        plugin.after_forward(None)
        host(10 * tensor(x).float())  # another pass of the same step
        plugin.after_update(step_of(9, done))
    near = file | {"tolerance": {"rtol": 1e-6}}  # inputs are looked at in 32 bits
    agrees(near, plugin.lengths["w"], out["feature_norm_ema"], "lengths")
    assert (~plugin.pruned["w"]).tolist() == out["mask_keep"]
    agrees(file, block.A, out["A_pruned"], "A")


@pytest.mark.parametrize("form", FORMS)
def test_prilora(form):
    check_prilora(golden("prilora", form))


def _sees_everything(self, strategy, **kwargs):
    """Never stops looking."""


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("complora.rank_at", lambda first, last, layer, deepest: rank_at(last, first, layer, deepest)),
        ("complora.rank_at", lambda first, last, layer, deepest: rank_at(first, last, layer, deepest + 1)),
        (
            "complora.rank_at",
            lambda first, last, layer, deepest: int(first + (last - first) * layer / deepest),
        ),
        ("pruning.least", lambda importance, share: ~least(importance, share)),
        ("pruning.least", lambda importance, share: least(importance.mT.contiguous(), share).mT),
        ("pruning.least", lambda importance, share: least(importance, share / 2)),
        ("pruning.PruningPlugin.given", lambda self, slot, x: _given(self, slot, x.mean(0, keepdim=True))),
        ("step_inputs.StepInputs.after_forward", _sees_everything),
    ],
)
def test_another_prilora_is_noticed(monkeypatch, name, wrong):
    monkeypatch.setattr(f"cl_complora.engine.updates.{name}", wrong)
    with pytest.raises(AssertionError):
        check_prilora(golden("prilora"))


_given = PruningPlugin.given


def test_importance_does_not_only_follow_the_entries():
    block = LowRankBlock(4, 4, 1, start=Start(a=torch.tensor([[1.0, 2.0, 3.0, 4.0]])))
    plugin, host = pruning_of(block, 4, every=1)
    plugin.before_forward(None)
    host(torch.tensor([[8.0, 4.0, 1.0, 1.0]]))
    plugin.after_forward(None)
    plugin.after_update(step_of(3, 1))
    assert block.A.tolist() == [[1.0, 2.0, 0.0, 0.0]]


def test_a_step_that_does_not_count_is_no_part_of_the_mean():
    block = LowRankBlock(4, 4, 1, start=Start(a=torch.tensor([[1.0, 2.0, 3.0, 4.0]])))
    plugin, host = pruning_of(block, 4, every=2)
    for done, x in enumerate((1.0, torch.inf), 1):
        plugin.before_forward(None)
        host(torch.full((1, 4), x))
        plugin.after_forward(None)
        plugin.after_update(step_of(9, done, counts=done == 1))
    assert plugin.lengths["w"].tolist() == [1.0] * 4
    assert block.A.tolist() == [[0.0, 0.0, 3.0, 4.0]]


@pytest.mark.parametrize("grow_back", [True, False])
def test_pruned_entries_grow_back_or_not_and_a_process_goes_on_alike(grow_back):
    block = LowRankBlock(4, 4, 1, start=Start(a=torch.tensor([[1.0, 2.0, 3.0, 4.0]])))
    plugin, host = pruning_of(block, 4, every=2, grow_back=grow_back)
    for done in (1, 2, 3):
        plugin.before_forward(None)
        host(torch.ones(1, 4))
        plugin.after_forward(None)
        with torch.no_grad():
            block.A.add_(0.5)
        plugin.after_update(step_of(9, done))
    assert block.A.tolist() == [[0.5, 0.5, 4.5, 5.5] if grow_back else [0.0, 0.0, 4.5, 5.5]]
    other, _ = pruning_of(block, 4, every=2, grow_back=grow_back)
    other.load_step_state({key: value.clone() for key, value in plugin.step_state().items()})
    assert torch.equal(other.lengths["w"], plugin.lengths["w"])
    assert torch.equal(other.pruned["w"], plugin.pruned["w"])


def test_in_a_subspace_inputs_are_in_the_coordinates_of_a():
    basis = torch.linalg.qr(torch.randn(5, 5))[0][:, 2:]
    block = LowRankBlock(4, 5, 2, input=Side(basis))
    plugin, host = pruning_of(block, 5, every=1)
    x = torch.randn(6, 5)
    plugin.before_forward(None)
    host(x)
    plugin.after_forward(None)
    plugin.after_update(step_of(3, 1))
    assert torch.allclose(plugin.lengths["w"], (x @ basis).norm(dim=0))
    assert block.A.count_nonzero() == 4  # three entries a row, of which one goes
    assert (block.factors()[1] @ (torch.eye(5) - basis @ basis.mT)).abs().max() < 1e-6


def test_ranks_follow_the_depth_in_each_tower(model):
    plugin = CompLoRAPlugin(rank=1, rank_last=3, matrices=("q", "fc"), seed=0)
    plugin.attach(model)
    last = max(slot.layer for slot in plugin.slots)
    for slot in plugin.slots:
        found = plugin.blocks[slot.name]
        assert found.rank == rank_at(1, 3, slot.layer, last) and len(found.A) == found.rank
    plugin.merge(model)
    assert [rank_at(1, 2, layer, 2) for layer in range(3)] == [1, 2, 2]  # halves are rounded up


def test_a_matrix_without_a_direction_has_nothing_to_prune():
    """As ``select: top`` leaves it where the share of the directions rounds to none."""
    width = 8
    block = LowRankBlock(4, width, 1, input=Side(torch.empty(width, 0)))
    plugin, host = pruning_of(block, every=1)
    plugin.before_forward(None)
    host(torch.randn(3, width))
    plugin.after_forward(None)
    plugin.after_update(step_of(9, 1))
    assert plugin.lengths["w"].shape == (0,)
