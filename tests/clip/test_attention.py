"""Attention split into q, k, v and o computes what the whole one does."""

from __future__ import annotations

import math

import open_clip
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders.clip_models import (
    attach,
    merge,
)
from cl_complora.clip.attention import SplitAttention, is_fused_attention
from cl_complora.clip.slots import open_slots
from cl_complora.lowrank import AdaptedLinear


# Attention
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
