"""Low-rank updates in every kind of CLIP: adapted equals merged, and gradients reach the factors alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from builders.clip_models import (
    MODELS,
    attach,
    close,
    merge,
    outputs,
    timm_tower,
    tiny_clip,
)
from cl_complora.clip.attention import SplitAttention
from cl_complora.clip.slots import open_slots
from cl_complora.lowrank import LowRankBlock


@pytest.fixture(params=MODELS)
def model(request) -> nn.Module:
    return MODELS[request.param]()


# Low-rank updates
def test_adapted_equals_merged_and_switches_off(model):
    before = outputs(model)
    slots = open_slots(model)
    attach(slots)
    adapted = outputs(model)
    if any(slot.tower == "vision" for slot in slots):
        assert not torch.allclose(adapted["image"], before["image"], rtol=1e-2)
    assert not torch.allclose(adapted["text"], before["text"], rtol=1e-2)
    for slot in slots:
        slot.adapters.enabled = False
    close(outputs(model), before)
    for slot in slots:
        slot.adapters.enabled = True
    close(outputs(model), adapted)
    twin = copy.deepcopy(model)
    merge(model, slots)
    close(outputs(model), adapted)
    close(outputs(twin), adapted)
    assert not any("adapters" in key for key in model.state_dict())


def test_gradient_reaches_the_factors_and_nothing_else(model):
    slots = open_slots(model)
    model.requires_grad_(False)
    blocks = attach(slots)
    found = outputs(model)
    (found["image"].square().sum() + found["text"].square().sum() + found["logits"].sum()).backward()
    reached = {id(p) for p in model.parameters() if p.grad is not None}
    assert reached == {id(p) for block in blocks.values() for p in (block.A, block.B)}
    assert not [name for name, b in blocks.items() for p in (b.A, b.B) if not p.grad.abs().sum() > 0]


@pytest.mark.parametrize("make", [tiny_clip, timm_tower], ids=["open_clip", "timm"])
@pytest.mark.parametrize("matrix", ["q", "k", "v"])
def test_a_factor_on_q_changes_the_rows_of_q_only(make, matrix):
    model = make()
    slot = next(s for s in open_slots(model) if s.tower == "vision" and s.matrix == matrix)
    width = slot.weight.shape[1]
    x = torch.randn(2, 3, width)
    host = slot.host

    def fused():
        if isinstance(host, SplitAttention):
            return torch.cat(host._project(x, x, x), -1)
        return host(x)

    before = fused()
    (block,) = attach([slot]).values()
    change = (fused() - before).reshape(-1, 3, width)
    b, a = block.factors()
    own = (x @ a.mT @ b.mT).reshape(-1, width)
    torch.testing.assert_close(change[:, "qkv".index(matrix)], own, atol=1e-5, rtol=1e-5)
    assert change[:, ["qkv"[i] != matrix for i in range(3)]].abs().max() == 0


def test_dropout_of_the_low_rank_path_acts_in_training_only():
    model = tiny_clip()
    attach(open_slots(model), dropout=0.5)
    close(outputs(model), outputs(model))
    evaluated = outputs(model)["image"]
    model.train()
    first, second = outputs(model), outputs(model)
    assert not torch.equal(first["image"], second["image"]) and not torch.equal(first["text"], second["text"])
    torch.testing.assert_close(outputs(model.eval())["image"], evaluated, atol=0, rtol=0)


def test_dropout_of_the_low_rank_path_acts_in_cross_attention():
    torch.manual_seed(0)
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2, batch_first=True)})
    slots = open_slots(model)
    attach([s for s in slots if s.matrix in "qkv"], dropout=0.5)
    x, other = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    assert not torch.equal(model["attn"](x, other, other)[0], model["attn"](x, other, other)[0])
    model.eval()
    torch.testing.assert_close(
        model["attn"](x, other, other)[0], model["attn"](x, other, other)[0], atol=0, rtol=0
    )


def test_rank_beyond_the_dimensions():
    model = tiny_clip()
    slots = open_slots(model)
    attach(slots, rank=200)
    adapted = outputs(model)
    assert all(value.isfinite().all() for value in adapted.values())
    merge(model, slots)
    close(outputs(model), adapted)
    with pytest.raises(ValueError, match="rank must be at least 1"):
        LowRankBlock(4, 4, 0)
