"""Self-attention whose q, k, v and o are open to separate low-rank updates, with the original's parameter names.

Recognised by attributes (``in_proj_weight``, ``out_proj``, ``num_heads``), never by class: open_clip 3 uses
``nn.MultiheadAttention``, open_clip 4 its own module. The whole module is replaced, because inside
``nn.MultiheadAttention`` a replaced ``out_proj`` is never called: its functional form reads ``out_proj.weight``.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..lowrank import AdaptedLinear, Adapters

# Settings under which a module with the same attributes computes something else than plain attention.
_EXTRAS = ("bias_k", "bias_v", "head_scale", "logit_scale", "q_norm", "k_norm", "ln_q", "ln_k")


def is_fused_attention(module: nn.Module) -> bool:
    """Whether ``module`` is plain self-attention with one fused q, k, v weight (3E × E)."""
    weight, out, heads = (getattr(module, name, None) for name in ("in_proj_weight", "out_proj", "num_heads"))
    if not (isinstance(weight, Tensor) and isinstance(out, nn.Linear) and isinstance(heads, int)):
        return False
    if weight.ndim != 2 or weight.shape[0] != 3 * weight.shape[1]:
        return False
    plain = all(_absent(getattr(module, name, None)) for name in _EXTRAS)
    return plain and not getattr(module, "add_zero_attn", False) and not getattr(module, "scaled_cosine", False)


def _absent(part: object) -> bool:
    return part is None or isinstance(part, nn.Identity)


class SplitAttention(nn.Module):
    """Drop-in replacement of a fused attention: same parameters and keys, q, k, v and o adaptable apart.

    Args:
        original: a module for which :func:`is_fused_attention` holds.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = original.in_proj_weight, original.in_proj_bias
        self.out_proj = AdaptedLinear(original.out_proj)
        self.num_heads = original.num_heads
        self.embed_dim = self.in_proj_weight.shape[1]
        self.batch_first = getattr(original, "batch_first", True)
        # nn.MultiheadAttention answers (output, weights), open_clip 4's module the output alone.
        self.returns_tuple = "need_weights" in inspect.signature(original.forward).parameters
        self.dropout = float(getattr(original, "dropout", 0.0) or 0.0)
        self.adapters = Adapters()

    def rows(self, matrix: str) -> slice:
        """Rows of ``in_proj_weight`` that are q, k or v."""
        start = "qkv".index(matrix) * self.embed_dim
        return slice(start, start + self.embed_dim)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if key is query and value is query:
            fused = F.linear(query, self.in_proj_weight, self.in_proj_bias)
            return self.adapters.add_to(fused, query, 3 * self.embed_dim).chunk(3, dim=-1)
        projected = []
        for name, x in (("q", query), ("k", key), ("v", value)):
            rows = self.rows(name)
            bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
            y = F.linear(x, self.in_proj_weight[rows], bias)
            if name in self.adapters and self.adapters.enabled:
                b, a = self.adapters[name].factors()
                y = y + F.linear(F.linear(x, a), b)
            projected.append(y)
        return tuple(projected)

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        value: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        q_x: Tensor | None = None,
        k_x: Tensor | None = None,
        v_x: Tensor | None = None,
        **unsupported: object,
    ) -> Tensor | tuple[Tensor, None]:
        """``N × L × E`` (batch first) or ``L × N × E`` in, the same out.

        Raises:
            ValueError: for arguments that this module does not compute (padding masks, attention weights).
        """
        given = [name for name, argument in unsupported.items() if argument not in (None, False)]
        if given or need_weights:
            raise ValueError(f"SplitAttention does not support {given or ['need_weights']}")
        query = query if query is not None else q_x
        key = key if key is not None else (k_x if k_x is not None else query)
        value = value if value is not None else (v_x if v_x is not None else key)
        q, k, v = self._project(query, key, value)
        if not self.batch_first:
            q, k, v = (t.transpose(0, 1) for t in (q, k, v))
        batch, length, width = q.shape
        heads = [t.reshape(batch, -1, self.num_heads, width // self.num_heads).transpose(1, 2) for t in (q, k, v)]
        if attn_mask is not None and attn_mask.dtype != torch.bool:
            attn_mask = attn_mask.to(q.dtype)
        if attn_mask is not None and attn_mask.ndim == 3:
            attn_mask = attn_mask.view(batch, -1, *attn_mask.shape[1:])
        out = F.scaled_dot_product_attention(
            *heads, attn_mask=attn_mask, dropout_p=self.dropout if self.training else 0.0
        )
        out = out.transpose(1, 2).reshape(batch, length, width)
        out = self.out_proj(out if self.batch_first else out.transpose(0, 1))
        return (out, None) if self.returns_tuple else out
