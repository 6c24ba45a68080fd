"""Hosts of low-rank updates in every kind of CLIP, what they compute, and the text head with its cache."""

from __future__ import annotations

import copy
import functools
import math

import open_clip
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from builders.models import TINY
from builders.models import tiny_clip as new_tiny_clip
from builders.places import SHARED
from cl_complora.clip.attention import SplitAttention, is_fused_attention
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.evaluate import accuracy, predictions
from cl_complora.clip.slots import open_slots, select_slots
from cl_complora.clip.text import TextEncoder, evaluating
from cl_complora.data.labels import LabelSpace
from cl_complora.delta import TaskDelta
from cl_complora.lowrank import AdaptedLinear, LowRankBlock

REAL = SHARED / "realdata/model/mobilevit_xxs_clip.json"
SPACE = LabelSpace.from_templates(
    ["cat", "sea lion", "fire truck"], ["a photo of a {}.", "a drawing of the {}."]
)
VISION, TEXT = TINY["vision_cfg"], TINY["text_cfg"]


def remembered(make):
    """Drawing the weights takes longer than most tests; a copy does not."""
    kept: dict[str, nn.Module] = {}

    @functools.wraps(make)
    def copied(*args, **kwargs) -> nn.Module:
        key = repr((args, kwargs))
        if key not in kept:
            kept[key] = make(*args, **kwargs)
        return copy.deepcopy(kept[key])

    return copied


@remembered
def built(kind: str, *, vision: dict | None = None, text: dict | None = None, **extra) -> nn.Module:
    """A small random model of open_clip, its matrices large enough for wrong maths to show."""
    torch.manual_seed(0)
    vision, text = VISION | (vision or {}), TEXT | (text or {})
    model = getattr(open_clip.model, kind)(embed_dim=32, vision_cfg=vision, text_cfg=text, **extra)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(1.5)
    return model.eval()


tiny_clip = remembered(new_tiny_clip)


@remembered
def timm_tower(name: str = "vit_tiny_patch16_224") -> nn.Module:
    config = {"timm_model_name": name, "timm_pool": "", "timm_proj": "linear", "image_size": 224}
    torch.manual_seed(0)
    model = open_clip.model.CLIP(embed_dim=32, vision_cfg=config, text_cfg=TEXT)
    model.visual.set_input_size(32)
    return model.eval()


@remembered
def coca() -> nn.Module:
    torch.manual_seed(0)
    pool = {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2, "output_tokens": True}
    decoder = {"context_length": 15, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    return open_clip.coca_model.CoCa(
        embed_dim=32,
        vision_cfg=VISION | pool,
        text_cfg=TEXT | {"context_length": 15, "embed_cls": True, "output_tokens": True},
        multimodal_cfg=decoder,
    ).eval()


@remembered
def mobilevit() -> nn.Module:
    if not REAL.exists():
        pytest.skip(f"{REAL} is not in this checkout")
    open_clip.add_model_config(REAL)
    return open_clip.create_model(
        "mobilevit_xxs_clip", pretrained=str(REAL.with_suffix(".safetensors"))
    ).eval()


MODELS = {
    "CLIP": tiny_clip,
    "CustomTextCLIP": lambda: built("CustomTextCLIP"),
    "custom blocks": lambda: built("CLIP", vision={"block_type": "custom"}, text={"block_type": "custom"}),
    "ResNet": lambda: built(
        "CLIP", vision={"layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "image_size": 64}
    ),
    "CoCa": coca,
    "timm ViT": timm_tower,
    "mobilevit": mobilevit,
}


@pytest.fixture(params=MODELS)
def model(request) -> nn.Module:
    return MODELS[request.param]()


def batch(model: nn.Module) -> torch.Tensor:
    size = model.visual.image_size
    side = min(size if isinstance(size, int) else size[0], 64)  # mobilevit takes any size
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


tokenizer_of = functools.cache(open_clip.SimpleTokenizer)


def tokens(model: nn.Module) -> torch.Tensor:
    context = model.text.context_length if hasattr(model, "text") else model.context_length
    return tokenizer_of(context_length=context)(["a photo of a cat", "two", "a very long description of it"])


def outputs(model: nn.Module) -> dict[str, torch.Tensor]:
    image, text = model.encode_image(batch(model)), model.encode_text(tokens(model))
    logits = model.logit_scale.exp() * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).mT
    return {"image": image, "text": text, "logits": logits}


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        worst, size = (float(x.detach().abs().max()) for x in (found[name] - value, value))
        # Features of mobilevit go up to 110; logits must agree as they are.
        assert worst <= 1e-5 * (1.0 if name == "logits" else max(1.0, size)), (name, worst)


def attach(slots, rank: int = 2, dropout: float = 0.0) -> dict[str, LowRankBlock]:
    """Random non-zero A and B on every slot, with the rest of the model frozen by the caller."""
    generator = torch.Generator().manual_seed(3)
    blocks = {}
    for slot in slots:
        out, width = slot.weight.shape
        block = LowRankBlock(out, width, rank, scaling=0.7, dropout=dropout, generator=generator)
        with torch.no_grad():
            block.B.copy_(torch.randn(block.B.shape, generator=generator) * 0.1)
        slot.adapters.attach(slot.matrix, slot.rows, block)
        blocks[slot.name] = block
    return blocks


def merge(model: nn.Module, slots) -> None:
    delta = TaskDelta()
    for slot in slots:
        b, a = slot.adapters.detach(slot.matrix).factors()
        delta.factors[slot.key] = (b.detach(), a.detach())
    delta.add_to(dict(model.named_parameters()))


# Opening
# ------------------------------------------------------------------------------------------------------------


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


# Attention
# ----------------------------------------------------------------------------------------------------------


class OwnAttention(nn.Module):
    """As open_clip 4 has it: raw fused parameters, batch first, a tensor as the answer."""

    def __init__(self, dim: int, num_heads: int, bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.randn(3 * dim, dim) * dim**-0.5)
        self.in_proj_bias = nn.Parameter(torch.randn(3 * dim)) if bias else None
        self.out_proj = nn.Linear(dim, dim, bias=bias)

    def forward(self, q_x, k_x=None, v_x=None, attn_mask=None):
        k_x = q_x if k_x is None else k_x
        v_x = q_x if v_x is None else v_x
        weights = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, w, b).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, w, b in zip((q_x, k_x, v_x), weights, biases, strict=True)
        )
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if attn_mask is not None:
            scores = (
                scores.masked_fill(attn_mask, -math.inf)
                if attn_mask.dtype == torch.bool
                else scores + attn_mask
            )
        return self.out_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class OwnBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.ln = OwnAttention(24, 3), nn.LayerNorm(24)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(24, 48))
        self.mlp.add_module("c_proj", nn.Linear(48, 24))

    def forward(self, q_x, k_x=None, v_x=None, attn_mask=None):
        x = q_x.to(self.mlp.c_fc.weight.dtype)
        x = x + self.attn(self.ln(x), k_x=k_x, v_x=v_x, attn_mask=attn_mask)
        return x + self.mlp(x)


def causal(length: int) -> torch.Tensor:
    return torch.full((length, length), -math.inf).triu(1)


def test_the_attention_of_open_clip_4():
    torch.manual_seed(0)
    model = nn.ModuleList([OwnBlock() for _ in range(2)]).eval()
    x, other, mask = torch.randn(2, 6, 24), torch.randn(2, 4, 24), causal(6)

    def run():
        return [
            model[1](model[0](x, attn_mask=mask), attn_mask=mask),
            model[0](x, attn_mask=mask.isinf()),
            model[0](x, k_x=other, v_x=other),
        ]

    before, keys = run(), list(model.state_dict())
    slots = open_slots(model)
    assert isinstance(model[0].attn, SplitAttention) and list(model.state_dict()) == keys
    assert [(s.layer, s.matrix) for s in slots] == [
        (n, m) for n in (0, 1) for m in ("q", "k", "v", "o", "fc", "proj")
    ]
    for found, expected in zip(run(), before, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    attach(slots)
    adapted = run()
    merge(model, slots)
    for found, expected in zip(run(), adapted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mask", ["none", "causal", "bool", "per head"])
@pytest.mark.parametrize("cross", [False, True])
def test_torch_attention(batch_first, bias, mask, cross):
    torch.manual_seed(0)
    original = nn.MultiheadAttention(24, 3, bias=bias, batch_first=batch_first).eval()
    if bias:
        nn.init.normal_(original.in_proj_bias)
    batch_shape = (2, 5, 24) if batch_first else (5, 2, 24)
    query, other = torch.randn(batch_shape), torch.randn(batch_shape)
    key = other if cross else query
    given = {
        "none": None,
        "causal": causal(5),
        "bool": causal(5).isinf(),
        "per head": torch.randn(6, 5, 5),
    }[mask]
    expected = original(query, key, key, need_weights=False, attn_mask=given)[0]
    found, weights = SplitAttention(original)(query, key, key, need_weights=False, attn_mask=given)
    assert weights is None
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    if mask == "causal" and not cross:
        hinted = SplitAttention(original)(
            query, key, key, attn_mask=given, is_causal=True, average_attn_weights=True
        )
        torch.testing.assert_close(hinted[0], expected, atol=1e-5, rtol=1e-5)


def test_arguments_that_are_not_computed_are_refused():
    attention = SplitAttention(nn.MultiheadAttention(8, 2, batch_first=True))
    x = torch.randn(1, 3, 8)
    with pytest.raises(ValueError, match="key_padding_mask"):
        attention(x, x, x, torch.zeros(1, 3, dtype=torch.bool))  # fourth by position, as in torch
    with pytest.raises(ValueError, match="need_weights"):
        attention(x, x, x, need_weights=True)


def scaled(attention: nn.Module, scale: float) -> nn.Module:
    attention.scale = scale
    return attention


@pytest.mark.parametrize(
    "original",
    [
        nn.MultiheadAttention(8, 2, add_bias_kv=True),
        nn.MultiheadAttention(8, 2, add_zero_attn=True),
        nn.MultiheadAttention(8, 2, kdim=6, vdim=6),
        nn.MultiheadAttention(8, 2, kdim=8, vdim=6),
        open_clip.transformer.Attention(8, 2, qk_norm=True),
        open_clip.transformer.Attention(8, 2, scaled_cosine=True),
        open_clip.transformer.Attention(8, 2, scale_heads=True),
        open_clip.transformer.Attention(8, 2, inner_norm=True),
        scaled(open_clip.transformer.Attention(8, 2), 1.0),
    ],
    ids=["bias_k", "add_zero_attn", "kdim", "vdim", "qk norm", "cosine", "head scale", "inner norm", "scale"],
)
def test_attention_of_another_kind_is_left_alone(original):
    model = nn.ModuleDict({"attn": original, "fc": nn.Linear(8, 8)})
    assert not is_fused_attention(original)
    assert [s.name for s in open_slots(model)] == ["fc.other"]
    assert model["attn"] is original and type(original.out_proj) is not AdaptedLinear


def test_dropout_of_the_original_is_kept():
    torch.manual_seed(0)
    for original in (
        nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True),
        open_clip.transformer.Attention(8, 2, attn_drop=0.5),
        open_clip.transformer.Attention(8, 2, proj_drop=0.5),
    ):
        split, x = SplitAttention(original), torch.randn(1, 4, 8)
        given = (x, x, x) if split.returns_tuple else (x,)

        def run(module, given=given):
            found = module(*given)
            return found[0] if isinstance(found, tuple) else found

        assert not torch.equal(run(split.train()), run(split))
        torch.testing.assert_close(run(split.eval()), run(original.eval()), atol=1e-5, rtol=1e-5)


# Low-rank updates
# ---------------------------------------------------------------------------------------------------


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


# Text head
# ----------------------------------------------------------------------------------------------------------


def encoder(model: nn.Module) -> TextEncoder:
    return TextEncoder(model, tokenizer_of(context_length=16))


@pytest.mark.parametrize("kind", ["CLIP", "CustomTextCLIP"])
@pytest.mark.parametrize("text", [{}, {"proj_type": "none"}, {"proj_bias": True}, {"block_type": "custom"}])
def test_trimmed_text_equals_full(kind, text):
    model = built(kind, text=text)
    head = encoder(model)
    lengths = []
    head.tower.transformer.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    for opened in (False, True):
        if opened:
            attach([s for s in open_slots(model) if s.tower == "text"])
        for prompts in (["hi"], ["a photo of a cat", "two"], ["word " * 30, "hi"]):
            tokens = head.tokenizer(prompts)
            torch.testing.assert_close(head.encode(tokens), model.encode_text(tokens), atol=1e-5, rtol=1e-5)
    assert head._trim and lengths[2] == 3, "<start> hi <end>"  # the first two calls are the check


@pytest.mark.parametrize(
    "text", [{"pool_type": "first"}, {"pool_type": "last"}, {"no_causal_mask": True}], ids=str
)
@pytest.mark.parametrize("kind", ["CLIP", "CustomTextCLIP"])
def test_no_trimming_where_it_would_not_be_exact(kind, text):
    model = built(kind, text=text)
    head = encoder(model)
    tokens = head.tokenizer(["hi", "a photo of a cat"])
    torch.testing.assert_close(head.encode(tokens), model.encode_text(tokens), atol=0, rtol=0)
    assert head._trim is False


def test_no_trimming_of_a_mask_that_is_not_causal():
    model = tiny_clip()
    model.attn_mask.zero_()
    head = encoder(model)
    full = head.tokenizer(["word " * 30])
    tokens = torch.cat([full] * 4 + [head.tokenizer(["hi"])])  # the first prompts leave nothing to trim
    torch.testing.assert_close(head.encode(tokens), model.encode_text(tokens), atol=0, rtol=0)


def test_the_check_leaves_modes_alone():
    model = tiny_clip().train()
    model.transformer.resblocks[0].eval()
    modes = [m.training for m in model.modules()]
    encoder(model).encode(tokenizer_of(context_length=16)(["hi"]))
    assert [m.training for m in model.modules()] == modes


def test_coca_is_encoded_in_full():
    model = coca()
    head = TextEncoder(model, tokenizer_of(context_length=15))
    torch.testing.assert_close(head.encode(tokens(model)), model.encode_text(tokens(model)), atol=0, rtol=0)


def test_features_are_the_normalised_mean_of_normalised_prompts():
    model = tiny_clip()
    head = encoder(model)
    rows = [
        F.normalize(model.encode_text(head.tokenizer(list(texts))), dim=-1).mean(0) for texts in SPACE.prompts
    ]
    torch.testing.assert_close(
        head.features(SPACE), F.normalize(torch.stack(rows), dim=-1), atol=1e-5, rtol=1e-5
    )


class Counted:
    """A text head of a frozen model, and how often its tower has run."""

    def __init__(self, kind: str = "CLIP") -> None:
        self.model = built(kind).requires_grad_(False)
        self.head = encoder(self.model)
        self.slots = [s for s in open_slots(self.model) if s.tower == "text"]
        self.head.features(SPACE)  # the first encoding brings the check of trimming
        self.head.forget()
        self.runs = 0
        self.head.tower.transformer.register_forward_hook(self.count)

    def count(self, *_) -> None:
        self.runs += 1

    def check(self) -> None:
        """What the cache answers is what the tower computes."""
        with torch.no_grad():
            torch.testing.assert_close(
                self.head.features(SPACE), self.head.encode_space(SPACE), atol=0, rtol=0
            )


@pytest.mark.parametrize("kind", ["CLIP", "CustomTextCLIP"])
def test_features_are_cached(kind):
    counted = Counted(kind)
    other = LabelSpace.from_templates(["dog"], ["{}"])
    for space in (SPACE, other, SPACE, SPACE, other):
        counted.head.features(space)
    assert counted.runs == 2
    for p in counted.model.visual.parameters():
        p.add_(1.0)
    counted.head.features(SPACE)
    assert counted.runs == 2, "the image tower has no part in it"
    counted.head.forget()
    counted.head.features(SPACE)
    assert counted.runs == 3


def step(p: nn.Parameter, **options) -> None:
    p.requires_grad_(True)
    p.grad = torch.ones_like(p)
    torch.optim.AdamW([p], lr=0.1, **options).step()
    p.requires_grad_(False)
    p.grad = None


def _swap(p: nn.Parameter) -> None:
    p.data = p.data.flip(0)


CHANGES = {
    "in place": lambda p: p.mul_(1.5),
    "one entry": lambda p: p.view(-1)[5].mul_(1 + 1e-6),
    "through data": lambda p: p.data.mul_(1.5),
    "one entry through data": lambda p: p.data.view(-1)[7].mul_(1 + 1e-6),
    "other data": _swap,
    "optimiser": step,
    "fused optimiser": lambda p: step(p, fused=True),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["transformer.resblocks.1.mlp.c_fc.weight", "ln_final.weight"])
def test_a_change_of_text_weights_is_noticed(change, name):
    counted = Counted()
    counted.head.features(SPACE)
    with torch.no_grad():
        CHANGES[change](counted.model.get_parameter(name))
    counted.head.features(SPACE)
    assert counted.runs == 2
    counted.check()


def test_loading_other_weights_is_noticed():
    counted = Counted()
    counted.head.features(SPACE)
    counted.model.load_state_dict(tiny_clip(seed=1).state_dict())
    counted.check()
    assert counted.runs == 3


def test_attaching_switching_and_detaching_are_noticed():
    counted = Counted()
    plain = counted.head.features(SPACE)
    attach(counted.slots)
    with torch.no_grad():
        adapted = counted.head.features(SPACE)
        assert not torch.allclose(plain, adapted, atol=1e-3)
        for slot in counted.slots:
            slot.adapters.enabled = False
        torch.testing.assert_close(counted.head.features(SPACE), plain, atol=1e-6, rtol=0)
        for slot in counted.slots:
            slot.adapters.enabled = True
        torch.testing.assert_close(counted.head.features(SPACE), adapted, atol=0, rtol=0)
        for slot in counted.slots:
            slot.adapters.detach(slot.matrix)
        torch.testing.assert_close(counted.head.features(SPACE), plain, atol=1e-6, rtol=0)


def test_features_that_dropout_draws_are_not_kept():
    counted = Counted()
    attach(counted.slots, dropout=0.5)
    counted.model.train()
    with torch.no_grad():
        assert not torch.equal(counted.head.features(SPACE), counted.head.features(SPACE))
        counted.model.eval()
        torch.testing.assert_close(counted.head.features(SPACE), counted.head.features(SPACE), atol=0, rtol=0)


def test_features_carry_gradients_while_text_is_trained():
    counted = Counted()
    blocks = attach(counted.slots)
    counted.head.features(SPACE).sum().backward()
    assert all(p.grad is not None for block in blocks.values() for p in (block.A, block.B))
    with torch.no_grad():
        assert not counted.head.features(SPACE).requires_grad


def test_tokens_follow_the_model():
    head = encoder(tiny_clip())
    assert head.tokens(SPACE) is head.tokens(SPACE)
    head.model.to("meta")
    assert head.tokens(SPACE).device.type == "meta"


def test_cut_prompts(tokenizer):
    long = "the long eared desert hedgehog of the northern steppe"
    space = LabelSpace.from_templates(["cat", long, "x " * 14], ["{}", "a photo of a {}.", "{}"])
    assert len(tokenizer.encode("x " * 14)) == 14  # with start and end it fills the context of 16, and fits
    cut = encoder(tiny_clip()).cut_prompts(space)
    assert cut == [f"a photo of a {long}.", "a photo of a " + "x " * 14 + "."]
    assert encoder(tiny_clip()).cut_prompts(SPACE) == []


# Classifier
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def classifier(tokenizer) -> ClipClassifier:
    return ClipClassifier(tiny_clip(), tokenizer, SPACE).eval()


def test_logits_are_open_clips_own(classifier):
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    transform = open_clip.image_transform(32, is_train=False).transforms[-1]
    normalised = transform(images.float() / 255)
    torch.testing.assert_close(classifier.normalise(images), normalised, atol=1e-5, rtol=1e-5)
    single = SPACE.with_template(0)
    texts = classifier.text.tokenizer([prompts[0] for prompts in SPACE.prompts])
    expected, _ = classifier.clip.get_logits(normalised, texts)
    torch.testing.assert_close(classifier(images, single), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(classifier(normalised, single), expected, atol=1e-5, rtol=1e-5)


def test_a_logit_bias_is_added(tokenizer):
    model = built("CLIP", init_logit_bias=-3.0)
    plain = built("CLIP")
    images = batch(model)
    expected = ClipClassifier(plain, tokenizer, SPACE)(images) - 3.0
    torch.testing.assert_close(
        ClipClassifier(model, tokenizer, SPACE)(images), expected, atol=1e-5, rtol=1e-5
    )


def test_images_of_several_label_spaces(classifier):
    other = LabelSpace.from_templates(["dog", "house", "tree", "car", "sky"], ["{}"])
    images = batch(classifier.clip).repeat(2, 1, 1, 1)
    ids = torch.tensor([1, 0, 0, 1])
    logits = classifier(images, [SPACE, other], ids)
    assert logits.shape == (4, 5)
    torch.testing.assert_close(logits[0], classifier(images[:1], other)[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits[1, :3], classifier(images[1:2], SPACE)[0], atol=1e-5, rtol=1e-5)
    assert (logits[1:3, 3:] == torch.finfo(torch.float32).min).all() and (logits[1:3].argmax(1) < 3).all()
    with pytest.raises(ValueError, match="space_ids"):
        classifier(images, [SPACE, other])
    classifier.label_space = None
    with pytest.raises(ValueError, match="label space"):
        classifier(images)


def test_evaluation_leaves_modes_and_random_numbers_alone(classifier):
    classifier.train()
    classifier.clip.visual.eval()
    attach(open_slots(classifier.clip), dropout=0.5)
    modes = [m.training for m in classifier.modules()]
    images = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8)
    state = torch.get_rng_state()
    found = predictions(classifier, images, SPACE, batch_size=3)
    assert torch.equal(state, torch.get_rng_state())
    assert [m.training for m in classifier.modules()] == modes
    assert torch.equal(found, predictions(classifier, images, SPACE))
    assert accuracy(classifier, images, found, SPACE) == 1.0
    assert predictions(classifier, images[:0], SPACE).shape == (0,)


def test_modes_return_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with pytest.raises(RuntimeError), evaluating(model):
        assert not model[0].training
        raise RuntimeError
    assert model.training and model[0].training and not model[1].training


def test_a_copied_classifier_has_its_own_text_head(classifier):
    before = classifier.text.features(SPACE).clone()
    twin = copy.deepcopy(classifier)
    assert twin.text.model is twin.clip
    with torch.no_grad():
        twin.clip.ln_final.weight.mul_(-1.5)
    assert not torch.allclose(twin.text.encode_space(SPACE), before, atol=1e-3)
    torch.testing.assert_close(classifier.text.encode_space(SPACE), before, atol=1e-6, rtol=0)
