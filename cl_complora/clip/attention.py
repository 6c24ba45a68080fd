"""Self-attention whose q, k, v and o are open to separate low-rank updates, with the original's parameter
names.

Recognised by attributes (``in_proj_weight``, ``out_proj``, ``num_heads``), never by class: open_clip 3 uses
``nn.MultiheadAttention``, open_clip 4 its own module. The whole module is replaced, because inside
``nn.MultiheadAttention`` a replaced ``out_proj`` is never called: its functional form reads
``out_proj.weight``.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..lowrank import AdaptedLinear, Adapters, low_rank_sum

# All that plain attention holds. A module with any other weight (bias_k, norms of q and k, head scales, …) or
# any other part computes something else and is left alone.
_PARAMETERS = {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"}
_DROPOUTS = {
    "attn_drop": "dropout",
    "dropout": "dropout",
    "out_drop": "output_dropout",
    "proj_drop": "output_dropout",
}
_FLAGS = ("add_zero_attn", "scaled_cosine")

# The names under which nn.MultiheadAttention and open_clip's own modules take the same arguments.
_ARGUMENTS = {"q_x": "query", "x": "query", "k_x": "key", "v_x": "value"}


def is_plain_linear(module: nn.Module) -> bool:
    """Whether ``module`` computes exactly W x + b with a weight of its own (no subclass, no
    parametrisation)."""
    return (
        isinstance(module, nn.Linear)
        and type(module).forward is nn.Linear.forward
        and isinstance(module._parameters.get("weight"), nn.Parameter)
    )


def is_fused_attention(module: nn.Module) -> bool:
    """Whether ``module`` is plain self-attention with one fused q, k, v weight (3E × E)."""
    weight, out, heads = (getattr(module, name, None) for name in ("in_proj_weight", "out_proj", "num_heads"))
    if not (isinstance(weight, nn.Parameter) and isinstance(heads, int) and is_plain_linear(out)):
        return False
    if (
        weight.ndim != 2
        or weight.shape[0] != 3 * weight.shape[1]
        or out.weight.shape != (weight.shape[1],) * 2
    ):
        return False
    if {name for name, _ in module.named_parameters()} - _PARAMETERS or any(
        getattr(module, f, False) for f in _FLAGS
    ):
        return False
    usual = (weight.shape[1] // heads) ** -0.5
    if getattr(module, "scale", usual) != usual:
        return False
    parts = [(name, part) for name, part in module.named_children() if part is not out]
    return all(
        isinstance(p, nn.Identity) or (isinstance(p, nn.Dropout) and name in _DROPOUTS) for name, p in parts
    )


class SplitAttention(nn.Module):
    """Drop-in replacement of a fused attention: same parameters and keys, q, k, v and o adaptable apart.

    Args:
        original: a module for which :func:`is_fused_attention` holds.
    """

    # nn.TransformerEncoderLayer asks for it before it takes a fused path around its parts, factors included.
    _qkv_same_embed_dim = False

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = original.in_proj_weight, original.in_proj_bias
        self.out_proj = AdaptedLinear(original.out_proj)
        self.num_heads = original.num_heads
        self.embed_dim = self.in_proj_weight.shape[1]
        self.batch_first = getattr(original, "batch_first", True)
        self.argument_names = tuple(inspect.signature(original.forward).parameters)
        # nn.MultiheadAttention answers (output, weights), open_clip 4's module the output alone.
        self.returns_tuple = "need_weights" in self.argument_names
        self.dropout = self.output_dropout = 0.0
        for name, kind in _DROPOUTS.items():
            part = getattr(original, name, None)
            if isinstance(part, float | nn.Dropout):
                setattr(self, kind, part if isinstance(part, float) else part.p)
        self.adapters = Adapters()

    def rows(self, matrix: str) -> slice:
        """Rows of ``in_proj_weight`` that are q, k or v."""
        start = "qkv".index(matrix) * self.embed_dim
        return slice(start, start + self.embed_dim)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        if key is query and value is query:
            fused = F.linear(query, self.in_proj_weight, self.in_proj_bias)
            return self.adapters.add_to(fused, query, 3 * self.embed_dim).chunk(3, dim=-1)
        projected = []
        for name, x in (("q", query), ("k", key), ("v", value)):
            rows = self.rows(name)
            y = F.linear(
                x, self.in_proj_weight[rows], None if self.in_proj_bias is None else self.in_proj_bias[rows]
            )
            if name in self.adapters and self.adapters.enabled:
                block = [(slice(0, self.embed_dim), self.adapters[name])]
                y = y + low_rank_sum(x, self.embed_dim, block, self.adapters.training)
            projected.append(y)
        return tuple(projected)

    def arguments(self, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor, Tensor, Tensor | None, bool]:
        """(query, key, value, mask, causal) of a call, under whichever names they are given."""
        given = {}
        for name, argument in {**dict(zip(self.argument_names, args, strict=False)), **kwargs}.items():
            if argument is not None:
                given[_ARGUMENTS.get(name, name)] = argument
        # Says what to do with attention weights, which are not returned.
        given.pop("average_attn_weights", None)
        query = given.pop("query")
        key = given.pop("key", query)
        value = given.pop("value", key)
        mask, causal = given.pop("attn_mask", None), given.pop("is_causal", False)
        unsupported = [name for name, argument in given.items() if argument is not False]
        if unsupported:
            raise ValueError(f"SplitAttention does not support {', '.join(unsupported)}")
        return query, key, value, mask, causal and mask is None

    def forward(self, *args: object, **kwargs: object) -> Tensor | tuple[Tensor, None]:
        """``N × L × E`` (batch first) or ``L × N × E`` in, the same out.

        Takes the arguments of the original: ``query, key, value`` (or ``q_x, k_x, v_x``, or ``x``) and
        ``attn_mask`` of ``L × S`` or ``N·heads × L × S``, added to the scores, or bool with True for what is
        hidden.

        Raises:
            ValueError: for arguments that this module does not compute (padding masks, attention weights).
        """
        query, key, value, mask, causal = self.arguments(args, kwargs)
        q, k, v = self._project(query, key, value)
        if not self.batch_first:
            q, k, v = (t.transpose(0, 1) for t in (q, k, v))
        batch, length, width = q.shape
        heads = [
            t.reshape(batch, -1, self.num_heads, width // self.num_heads).transpose(1, 2) for t in (q, k, v)
        ]
        if mask is not None:
            # The originals mark what is hidden, scaled_dot_product_attention what is seen.
            mask = ~mask if mask.dtype == torch.bool else mask.to(q.dtype)
            mask = mask.reshape(batch, -1, *mask.shape[1:]) if mask.ndim == 3 else mask
        out = F.scaled_dot_product_attention(
            *heads, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0, is_causal=causal
        )
        out = out.transpose(1, 2).reshape(batch, length, width)
        out = self.out_proj(out if self.batch_first else out.transpose(0, 1))
        if self.output_dropout > 0:
            out = F.dropout(out, self.output_dropout, self.training)
        return (out, None) if self.returns_tuple else out
