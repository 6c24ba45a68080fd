"""Hosts of low-rank updates in every kind of CLIP: opening them changes no output."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from builders.clip_models import (
    MODELS,
    attach,
    close,
    coca,
    merge,
    mobilevit,
    outputs,
    timm_tower,
    tiny_clip,
)
from cl_complora.clip.slots import open_slots, select_slots


@pytest.fixture(params=MODELS)
def model(request) -> nn.Module:
    return MODELS[request.param]()


# Opening
def test_opening_changes_no_output_no_key_and_no_mode(model):
    before, keys = outputs(model), list(model.state_dict())
    parameters = {name: id(p) for name, p in model.named_parameters()}
    model.visual.train()  # a mixed state: one tower in training mode
    modes = {name: module.training for name, module in model.named_modules()}
    slots = open_slots(model)
    assert list(model.state_dict()) == keys
    assert {name: id(p) for name, p in model.named_parameters()} == parameters
    assert all(module.training == modes[name] for name, module in model.named_modules() if name in modes)
    model.eval()
    close(outputs(model), before)

    assert [slot.name for slot in open_slots(model)] == [slot.name for slot in slots]
    assert len({slot.name for slot in slots}) == len({slot.key for slot in slots}) == len(slots)
    state = model.state_dict()
    for slot in slots:
        torch.testing.assert_close(slot.weight, state[slot.parameter][slot.rows], atol=0, rtol=0)

    twin = copy.deepcopy(model)
    close(outputs(twin), before)
    with torch.no_grad():
        for slot in open_slots(twin):
            slot.weight.zero_()
    close(outputs(model), before)


@pytest.mark.parametrize("training", [True, False])
def test_every_host_keeps_the_mode_of_what_it_replaces(training):
    model = tiny_clip().train(training)
    open_slots(model)
    assert all(module.training is training for module in model.modules())


def test_slots_of_open_clips_own_towers():
    found = {(s.tower, s.layer, s.matrix): s for s in open_slots(tiny_clip())}
    kinds = ("q", "k", "v", "o", "fc", "proj")
    assert set(found) == {
        (tower, layer, kind) for tower in ("vision", "text") for layer in (0, 1) for kind in kinds
    }
    slot = found["vision", 1, "k"]
    assert slot.key == "visual.transformer.resblocks.1.attn.in_proj_weight[48:96]"
    assert found["text", 0, "fc"].key == "transformer.resblocks.0.mlp.c_fc.weight[0:128]"


def test_slots_of_a_timm_tower_and_its_projection():
    model = timm_tower()
    slots = open_slots(model)
    vision = [s for s in slots if s.tower == "vision"]
    assert {s.layer for s in vision} == {-1, *range(12)}
    assert [s.matrix for s in vision if s.layer == 5] == ["q", "k", "v", "o", "fc", "proj"]
    assert [(s.name, s.matrix) for s in vision if s.layer == -1] == [("visual.head.proj.other", "other")]
    last = select_slots(slots, layers=[-1])
    assert len(last) == 12, "what is outside blocks is in no layer"
    assert all(s.name.startswith(("visual.trunk.blocks.11.", "transformer.resblocks.1.")) for s in last)
    with pytest.raises(ValueError, match=r"layers=\[-1, 99\]: no tower has 99; blocks: text \d+, vision \d+"):
        select_slots(slots, layers=[-1, 99])


def test_mobilevit_blocks_are_numbered_through():
    slots = open_slots(mobilevit())
    vision = [s for s in slots if s.tower == "vision"]
    blocks = {s.layer: s.name.partition(".attn")[0].partition(".mlp")[0] for s in vision}
    assert blocks[0] == "visual.trunk.stages.2.1.transformer.0"
    assert blocks[8] == "visual.trunk.stages.4.1.transformer.2"
    assert sorted(blocks) == [-1, *range(9)] and blocks[-1] == "visual.head.proj.other"
    assert {s.layer for s in select_slots(slots, layers=[-1], towers=["vision"])} == {8}
    assert [s.matrix for s in vision if s.layer == 4] == ["q", "k", "v", "o", "fc", "proj"]


SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}
TRUNKS = {
    "vit_base_patch16_siglip_224": SMALL | {"img_size": 32},  # attention pool with q and kv
    "eva_giant_patch14_224": SMALL | {"img_size": 28},  # reads qkv.weight unless told otherwise
    "eva02_base_patch16_clip_224": SMALL | {"img_size": 32},  # separate q, k, v and a gated MLP
    "swin_tiny_patch4_window7_224": {
        "embed_dim": 24,
        "depths": (1, 2),
        "num_heads": (1, 2),
    },  # stages, patch merging
}


@pytest.mark.parametrize("name", TRUNKS)
def test_other_timm_towers(name):
    torch.manual_seed(0)
    model = nn.ModuleDict({"visual": timm.create_model(name, num_classes=8, **TRUNKS[name])}).eval()
    size = TRUNKS[name].get("img_size", 224)
    images = torch.randn(1, 3, size, size)
    before = model["visual"](images)
    slots = open_slots(model)
    torch.testing.assert_close(model["visual"](images), before, atol=1e-5, rtol=1e-5)
    model.requires_grad_(False)
    blocks = attach(slots)
    adapted = model["visual"](images)
    adapted.square().sum().backward()
    unreached = [
        key for key, block in blocks.items() for p in (block.A, block.B) if not p.grad.abs().sum() > 0
    ]
    assert not unreached
    merge(model, slots)
    torch.testing.assert_close(model["visual"](images), adapted, atol=1e-5, rtol=1e-5)
    for layer in range(max(s.layer for s in slots) + 1):
        assert {s.matrix for s in slots if s.layer == layer} == {"q", "k", "v", "o", "fc", "proj"}
    outside = {s.name.removeprefix("visual.") for s in slots if s.layer == -1}
    pool = {f"attn_pool.{name}" for name in ("q.q", "kv.k", "kv.v", "proj.o", "mlp.fc1.fc", "mlp.fc2.proj")}
    expected = {
        "vit_base_patch16_siglip_224": pool | {"head.other"},
        "swin_tiny_patch4_window7_224": {"layers.1.downsample.reduction.other", "head.fc.other"},
    }
    assert outside == expected.get(name, {"head.other"})


def test_models_without_towers():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)
    )
    slots = open_slots(model)
    assert [(s.name, s.tower, s.layer, s.matrix) for s in slots] == [
        ("1.other", "", 0, "other"), ("3.other", "", 1, "other"), ("5.other", "", 2, "other")
    ]  # fmt: skip
    assert [s.name for s in select_slots(slots, layers=[-1])] == ["5.other"]
    with pytest.raises(ValueError, match=r"matrices=\['q'\].*it has model:other"):
        select_slots(slots, matrices=["q"])


def test_a_torch_encoder_layer_takes_no_shortcut_around_the_factors():
    torch.manual_seed(0)
    model = nn.ModuleList([nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)]).eval()
    x = torch.randn(2, 5, 16)
    before = model[0](x)
    slots = open_slots(model)
    assert [s.matrix for s in slots] == ["q", "k", "v", "o", "other", "other"]
    attach(slots)
    with torch.no_grad():
        adapted = model[0](x)
    assert not torch.allclose(adapted, before, atol=1e-3)
    merge(model, slots)
    torch.testing.assert_close(model[0](x), adapted, atol=1e-5, rtol=1e-5)


def test_what_is_read_and_not_called_is_left_alone():
    resnet = MODELS["ResNet"]()
    names = [s.name for s in open_slots(resnet)]
    assert not any(name.startswith("visual") for name in names) and names

    pooled = coca()
    names = [s.name for s in open_slots(pooled)]
    assert type(pooled.visual.attn_pool.attn) is nn.MultiheadAttention
    assert not any("attn_pool" in name or "text_decoder" in name for name in names)
    assert {s.tower for s in open_slots(pooled)} == {"vision", "text"}


def test_a_module_in_two_places_stays_one():
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"first": shared, "second": shared})
    slots = open_slots(model)
    assert model["first"] is model["second"] and len(slots) == 1


def test_layers_that_compute_something_else_are_left_alone():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    torch.manual_seed(0)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    model = nn.ModuleDict({"doubled": Doubled(4, 4), "normed": normed, "plain": nn.Linear(4, 4)})
    keys = list(model.state_dict())
    assert [s.name for s in open_slots(model)] == ["plain.other"]
    assert list(model.state_dict()) == keys
