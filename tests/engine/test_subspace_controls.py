"""The controls of a subspace do what they say to the updates: one side is confined and the other is not, the
pretrained weights are decomposed once and merged ones again after every task, and a random subspace is as
large as the complement."""

from __future__ import annotations

import pytest
import torch

from builders.models import tiny_clip
from cl_complora.config import load_strategy
from cl_complora.engine.build import build_adapter, check_fits
from cl_complora.engine.constraints import Constraint
from cl_complora.engine.updates.complora import CompLoRAPlugin
from cl_complora.errors import UserError
from cl_complora.lowrank import LowRankBlock
from cl_complora.subspace import Keep, overlap, principal

KEEP = Keep("fraction", 0.4)


def plugin_with(*settings: str, seed: int = 0) -> CompLoRAPlugin:
    """Of the square q and the high fc, as a strategy file would ask for it."""
    changes = ["keep={fraction: 0.4}", "protect=[principal]", *settings]
    changes = [f"adapter.subspace.{one}" for one in changes]
    changes += ["adapter.rank=2", "adapter.matrices=[q, fc]", "adapter.towers=[vision]"]
    return build_adapter(load_strategy("complora", changes).value.adapter, seed)


def learn(plugin: CompLoRAPlugin, model: torch.nn.Module, task: int = 0) -> dict[str, LowRankBlock]:
    """One task, whose factors end anywhere; their blocks as they were while it was trained."""
    plugin.attach(model)
    blocks = dict(plugin.blocks)
    generator = torch.Generator().manual_seed(task)
    with torch.no_grad():
        for block in blocks.values():
            block.A.normal_(generator=generator)
            block.B.normal_(generator=generator)
    plugin.merge(model)
    return blocks


def splits_of(plugin: CompLoRAPlugin) -> dict:
    """The decompositions of the weights as they are now."""
    return {slot.name: principal(slot.weight.detach(), KEEP, room=2) for slot in plugin.slots}


@pytest.mark.parametrize(("select", "share"), [("complement", 0.0), ("top", 1.0)])
@pytest.mark.parametrize("sides", ["in", "out", "both"])
def test_only_the_side_that_is_named_is_confined(select, share, sides):
    plugin, model = plugin_with(f"select={select}", f"sides={sides}"), tiny_clip()
    plugin.prepare(model)
    splits = splits_of(plugin)
    learn(plugin, model)
    assert len(splits) == len(plugin.deltas[0].factors) > 2
    for slot in plugin.slots:
        b, a = plugin.deltas[0].factors[slot.key]
        found = {
            "out": overlap(b @ a, splits[slot.name].u_k),
            "in": overlap((b @ a).mT, splits[slot.name].v_k),
        }
        for side, held in found.items():
            if sides in (side, "both"):
                assert held == pytest.approx(share, abs=1e-5), (slot.name, side)
            else:
                assert 0.1 < held < 0.99, (slot.name, side)


def after_a_task(of: str):
    """Bases of two tasks' inputs, and what the weights' own complements are before each of them.

    Outputs are free, so the first update changes the principal directions."""
    plugin, model = plugin_with("sides=in", f"of={of}"), tiny_clip()
    plugin.prepare(model)
    for task in range(2):
        now = splits_of(plugin)
        yield {name: block.input_basis for name, block in learn(plugin, model, task).items()}, now


def test_the_pretrained_weights_are_decomposed_once():
    (first, begun), (second, merged) = after_a_task("pretrained")
    for name, basis in second.items():
        assert torch.equal(basis, first[name])
        assert overlap(basis, begun[name].v_k) < 1e-5 and overlap(basis, merged[name].v_k) > 0.05, name


def test_merged_weights_are_decomposed_again_after_every_task():
    (first, _), (second, merged) = after_a_task("merged")
    for name, basis in second.items():
        assert overlap(basis, merged[name].v_k) < 1e-5 < overlap(first[name], merged[name].v_k), name


def test_a_random_subspace_is_as_large_as_the_complement_and_lies_elsewhere():
    plugin, model = plugin_with("select=random"), tiny_clip()
    plugin.prepare(model)
    splits = splits_of(plugin)
    blocks = learn(plugin, model)
    for name, split in splits.items():
        bases = blocks[name].output_basis, blocks[name].input_basis
        for basis, rest, kept in zip(bases, (split.u_c, split.v_c), (split.u_k, split.v_k), strict=True):
            assert basis.shape == rest.shape
            torch.testing.assert_close(basis.mT @ basis, torch.eye(basis.shape[1]), atol=1e-5, rtol=0)
            # A random direction has as much of the principal ones as they have of all.
            found, expected = overlap(basis, kept) ** 2, kept.shape[1] / len(kept)
            assert found == pytest.approx(expected, rel=0.5) and found > 0.05, name


def test_a_random_subspace_is_drawn_for_every_task_and_seed():
    def drawn(seed: int) -> list[torch.Tensor]:
        plugin, model = plugin_with("select=random", seed=seed), tiny_clip()
        found = [learn(plugin, model, task) for task in range(2)]
        return [block.input_basis for blocks in found for block in blocks.values()]

    one = drawn(0)
    assert all(torch.equal(basis, again) for basis, again in zip(one, drawn(0), strict=True))
    flat = [tuple(basis.flatten().tolist()) for basis in (*one, *drawn(1))]
    assert len(set(flat)) == len(flat)


def test_a_projector_is_of_the_complement_alone():
    with pytest.raises(ValueError, match="reduced=False works with select='complement', not 'random'"):
        Constraint(select="random", reduced=False)


def test_a_share_that_comes_to_no_direction_is_refused(model):
    chosen = ["adapter.subspace={select: top, keep: {fraction: 0.02}}", "adapter.rank=2"]
    strategy = load_strategy("complora-top", chosen).value
    with pytest.raises(UserError, match=r"keep\.fraction: 0\.02 of at most \d+ directions is none"):
        check_fits(strategy, build_adapter(strategy.adapter, 0), model)
