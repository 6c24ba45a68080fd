"""The low-rank linear map: factors confined to a subspace on either side, and their hosts.

    y = W x + s · U_c B A V_cᵀ x          A: r × (in − k), Kaiming-uniform(a=√5);  B: (out − k) × r, zero

``U_c`` and ``V_c`` are composed with the factors once per forward pass (A′ = A V_cᵀ is ``r × in``, B′ = U_c B
is ``out × r``), so a token pays what it pays for plain LoRA, and maps that read the same input (q, k, v)
share one product with their stacked A′. Orientation: U is the output side, V the input side (see
``subspace``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Side:
    """What one side of the update may touch.

    Attributes:
        basis: ``d × m`` orthonormal, or None for no constraint.
        coordinates: True trains coordinates in ``basis`` (the reduced form); False trains full-size factors
            and projects ``basis`` away (the projector form, I − P). The two span the same updates but start
            and train differently: the projected Kaiming init is smaller by (d − k)/d, and Adam is not
            rotation
                invariant.
    """

    basis: Tensor | None = None
    coordinates: bool = True

    def size(self, full: int) -> int:
        """Length of the trained side of a factor, given the weight's own length ``full``."""
        return self.basis.shape[1] if self.basis is not None and self.coordinates else full

    def left(self, full: int) -> int:
        """How many directions of ``full`` an update may use."""
        if self.basis is None:
            return full
        return self.basis.shape[1] if self.coordinates else full - self.basis.shape[1]

    def to(self, device: torch.device) -> Side:
        """The same on another device."""
        return self if self.basis is None else replace(self, basis=self.basis.to(device))


@dataclass(frozen=True)
class Start:
    """Where factors start and which of them are trained; shapes are those of the trained factors.

    Attributes:
        a: ``r × width`` instead of Kaiming-uniform; its rows set the rank.
        b: ``height × r`` instead of zero. What B A is at the start is taken off again, so ΔW starts at zero
            (and has twice the rank where A is trained as well).
        train_a: False fixes A.
        a_deviation: A from a normal distribution of this deviation instead of Kaiming-uniform.
        b_deviation: B likewise, and not taken off again: for factors between which something starts at zero.
    """

    a: Tensor | None = None
    b: Tensor | None = None
    train_a: bool = True
    a_deviation: float | None = None
    b_deviation: float = 0.0


def kaiming(rank: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """``rank × width`` from the Kaiming-uniform distribution with a = √5."""
    bound = 1.0 / math.sqrt(width) if width else 0.0
    return (torch.rand(rank, width, generator=generator) * 2 - 1) * bound


class LowRankBlock(nn.Module):
    """Factors A, B of one matrix with the constraint of both sides.

    Args:
        out_features, in_features: shape of the weight block.
        rank: r ≥ 1.
        scaling: s in the formula above.
        output, input: the constraint on each side.
        dropout: probability of zeroing an input feature of the low-rank path only (as CLIP-LoRA does).
        own_mask: whether the block drops entries of its own rather than those that all blocks of the weight
            drop.
        generator: source of A's init; None uses torch's global generator.
        start: where the factors start, if not as LoRA's.
        between: what stands between the factors, (s·B′, A′) → (s·B′, A′); nothing by default.
        rescaled: the weight block W itself, where the lengths of its rows are trained as well (DoRA):

                y = c ⊙ ((W + s·B′A′) x),   c_i = m_i / ‖(W + s·B′A′)_i‖ with the norm held fixed, m trained
                from ‖W_i‖

            The product W x is computed twice then.

    Attributes:
        ready: what :meth:`factors` gives, where it was computed for many blocks at once.
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        rank: int,
        scaling: float = 1.0,
        output: Side | None = None,
        input: Side | None = None,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
        start: Start | None = None,
        own_mask: bool = False,
        between: nn.Module | None = None,
        rescaled: Tensor | None = None,
    ) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        output, input, start = output or Side(), input or Side(), start or Start()
        self.rank = rank if start.a is None else start.a.shape[0]
        self.scaling, self.dropout, self.own_mask, self.between = scaling, dropout, own_mask, between
        self.ready: tuple[Tensor, Tensor] | None = None
        self.output_coordinates, self.input_coordinates = output.coordinates, input.coordinates
        self.register_buffer("output_basis", output.basis, persistent=False)
        self.register_buffer("input_basis", input.basis, persistent=False)
        shapes = (rank, input.size(in_features)), (output.size(out_features), self.rank)
        if start.a is not None:
            a = start.a
        elif start.a_deviation is not None:
            a = torch.randn(shapes[0], generator=generator) * start.a_deviation
        else:
            a = kaiming(*shapes[0], generator)
        b = start.b if start.b is not None else torch.zeros(shapes[1])
        if start.b_deviation > 0:
            b = torch.randn(shapes[1], generator=generator) * start.b_deviation
        if start.train_a:
            self.A = nn.Parameter(a.clone())
        else:
            self.register_buffer("A", a.clone(), persistent=False)
        self.B = nn.Parameter(b.clone())
        self.register_buffer("base", None if rescaled is None else rescaled.detach(), persistent=False)
        self.m = None if rescaled is None else nn.Parameter(torch.linalg.vector_norm(self.base, dim=1))
        doubled = start.b is not None and start.train_a
        self.register_buffer("first_a", a.clone() if doubled else None, persistent=False)
        self.register_buffer("first_b", -b if start.b is not None else None, persistent=False)

    def factors(self) -> tuple[Tensor, Tensor]:
        """(s·B′, A′) of shapes ``out × r`` and ``r × in``; differentiable, ΔW = (s·B′) A′."""
        b, a = self.composed()
        return (b, a) if self.between is None else self.between(b, a)

    def factors_for(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`factors`, or what is ready where it has the type that products with x are computed in."""
        if self.ready is None:
            return self.factors()
        kind = x.device.type
        wanted = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        return self.ready if self.ready[0].dtype == wanted else self.factors()

    def row_scale(self) -> Tensor:
        """c, ``out``; the gradient goes to m alone. A row of zeros (of a pruned matrix) stays one until m
        moves."""
        b, a = self.factors()
        length = torch.linalg.vector_norm((self.base + b @ a).detach(), dim=1)
        return self.m / length.masked_fill(length == 0.0, 1.0)

    def update(self) -> Tensor:
        """ΔW, ``out × in``; of low rank unless rows are rescaled."""
        b, a = self.factors()
        if self.m is None:
            return b @ a
        return self.row_scale()[:, None] * (self.base + b @ a) - self.base

    def composed(self) -> tuple[Tensor, Tensor]:
        """As :meth:`factors`, without what stands between them.

        With a start other than zero and both factors trained the rank is 2r: what the factors were at the
        start stands beside them, negated.
        """
        a, b = self.A, self.B
        if self.first_a is not None:
            a, b = torch.cat([a, self.first_a]), torch.cat([b, self.first_b], dim=1)
        elif self.first_b is not None:
            b = b + self.first_b
        if self.input_basis is not None:
            a = (
                a @ self.input_basis.mT
                if self.input_coordinates
                else a - (a @ self.input_basis) @ self.input_basis.mT
            )
        if self.output_basis is not None:
            u = self.output_basis
            b = u @ b if self.output_coordinates else b - u @ (u.mT @ b)
        return b * self.scaling, a


def low_rank_sum(
    x: Tensor, out_features: int, blocks: list[tuple[slice, LowRankBlock]], training: bool
) -> Tensor:
    """Σ over row blocks of B′A′x, with one product for all stacked A′ where all drop the same entries of x.

    Args:
        x: ``… × in``.
        out_features: rows of the whole weight; rows without a block get zero.
        blocks: (rows, block), rows ascending and disjoint.
        training: whether dropout is on.
    """
    dropout = blocks[0][1].dropout if training else 0.0
    composed = [block.factors_for(x) for _, block in blocks]
    if dropout > 0 and blocks[0][1].own_mask:
        seen = [F.dropout(x, dropout) for _ in composed]
        parts = [F.linear(part, a) for part, (_, a) in zip(seen, composed, strict=True)]
    else:
        x = F.dropout(x, dropout) if dropout > 0 else x
        inner = F.linear(x, torch.cat([a for _, a in composed]) if len(composed) > 1 else composed[0][1])
        parts = inner.split([a.shape[0] for _, a in composed], dim=-1)
        seen = [x] * len(composed)
    pieces: list[Tensor] = []
    row = 0
    for (rows, block), (b, _), part, given in zip(blocks, composed, parts, seen, strict=True):
        if rows.start > row:
            pieces.append(x.new_zeros(*x.shape[:-1], rows.start - row))
        piece = F.linear(part, b)
        if block.m is not None:
            c = block.row_scale()
            piece = c * piece + (c - 1) * F.linear(given, block.base)
        pieces.append(piece)
        row = rows.stop
    if row < out_features:
        pieces.append(x.new_zeros(*x.shape[:-1], out_features - row))
    return torch.cat(pieces, dim=-1) if len(pieces) > 1 else pieces[0]


class Adapters(nn.ModuleDict):
    """The low-rank blocks that sit on one weight, by matrix name, each with the rows that it adds to."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, slice] = {}
        self.enabled = True

    def attach(self, name: str, rows: slice, block: LowRankBlock) -> None:
        """Put ``block`` on the weight's ``rows``."""
        self[name] = block
        self.rows[name] = rows

    def detach(self, name: str) -> LowRankBlock:
        """Take a block off again; the weight is left as it is."""
        del self.rows[name]
        return self.pop(name)

    def ordered(self) -> list[tuple[slice, LowRankBlock]]:
        """(rows, block) by ascending row."""
        return sorted(
            ((self.rows[name], block) for name, block in self.items()), key=lambda pair: pair[0].start
        )

    def add_to(self, y: Tensor, x: Tensor, out_features: int) -> Tensor:
        """y + Σ B′A′x, or y itself where nothing is attached."""
        return (
            y + low_rank_sum(x, out_features, self.ordered(), self.training)
            if len(self) and self.enabled
            else y
        )


class AdaptedLinear(nn.Linear):
    """A linear layer that can carry low-rank blocks; its own parameters and state_dict keys are the
    original's."""

    def __init__(self, original: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = original.in_features, original.out_features
        self.weight, self.bias = original.weight, original.bias
        self.adapters = Adapters()

    def forward(self, x: Tensor) -> Tensor:
        """``… × in`` → ``… × out``."""
        return self.adapters.add_to(F.linear(x, self.weight, self.bias), x, self.out_features)
