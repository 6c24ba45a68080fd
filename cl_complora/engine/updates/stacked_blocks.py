"""Factors of many blocks composed with their bases at once: a few programs for each shape of matrices.

    B′_i = s_i · U_i B_i,   A′_i = A_i V_iᵀ        for i = 1 … n, as two products of stacks

One by one, the 72 maps of a ViT-B/16's q, k and v ask a GPU for some 500 programs more in every step, each
too small to fill it, so that a step waits for their launches. Complements differ in size from matrix to
matrix: bases are filled up with columns of zeros, and factors with zeros that these meet.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ...lowrank import LowRankBlock

Shapes = tuple[tuple[int, ...], ...]


class StackedBlocks:
    """Blocks whose factors are composed together wherever their shapes allow it.

    The stacks of bases take the place of the blocks' own, which become views of them.

    Args:
        blocks: on one device, attached; those that compose in another way (a start that is taken off again,
            full-size factors that are projected, something between them, rescaled rows) go on doing so by
            themselves.
    """

    def __init__(self, blocks: Iterable[LowRankBlock]) -> None:
        self.blocks = list(blocks)
        self._shapes = _shapes(self.blocks)
        groups: dict[tuple, list[LowRankBlock]] = {}
        for block in self.blocks:
            if _composes_plainly(block):
                groups.setdefault(_kind(block), []).append(block)
        self._groups = [_Group.of(members) for members in groups.values() if len(members) > 1]

    def holds(self, blocks: Iterable[LowRankBlock]) -> bool:
        """Whether these are the blocks, with factors of the sizes that they had."""
        blocks = list(blocks)
        same = len(blocks) == len(self.blocks) and all(map(operator.is_, blocks, self.blocks))
        return same and _shapes(blocks) == self._shapes

    @contextmanager
    def composed(self, dtype: torch.dtype = torch.float32) -> Iterator[None]:
        """Within, forward passes use factors that were composed once, at its beginning, differentiably.

        Args:
            dtype: that the products with the inputs are computed in; composed is in that of the factors.
        """
        try:
            for group in self._groups:
                group.compose(dtype)
            yield
        finally:
            for block in self.blocks:
                block.ready = None


def _shapes(blocks: Sequence[LowRankBlock]) -> Shapes:
    return tuple(tuple(factor.shape) for block in blocks for factor in (block.A, block.B))


def _composes_plainly(block: LowRankBlock) -> bool:
    projected = [
        basis is not None and not coordinates
        for basis, coordinates in (
            (block.input_basis, block.input_coordinates),
            (block.output_basis, block.output_coordinates),
        )
    ]
    started = block.first_a is not None or block.first_b is not None
    return not (started or any(projected)) and block.m is None and block.between is None


def _kind(block: LowRankBlock) -> tuple:
    """What blocks of one stack share: the shapes of A′ and B′, and which sides are confined."""
    u, v = block.output_basis, block.input_basis
    rows, columns = (u if u is not None else block.B).shape[0], len(v) if v is not None else block.A.shape[1]
    return len(block.A), rows, columns, u is None, v is None, block.A.dtype


@dataclass
class _Group:
    """Blocks of one kind.

    Attributes:
        scaling: s, ``n × 1 × 1``.
        output, input: bases, ``n × out × widest`` and ``n × in × widest``; None where a side is free.
        rows, columns: where the entries of all B, and of all A, lie in their stacks; None where none is
            filled up.
    """

    blocks: list[LowRankBlock]
    scaling: Tensor
    output: Tensor | None
    input: Tensor | None
    rows: Tensor | None
    columns: Tensor | None

    @classmethod
    def of(cls, blocks: list[LowRankBlock]) -> _Group:
        """Stack the bases of blocks."""
        like, scaling = blocks[0].B, torch.tensor([block.scaling for block in blocks])
        output, input = _stack_of_bases(blocks, "output_basis"), _stack_of_bases(blocks, "input_basis")
        return cls(
            blocks,
            scaling[:, None, None].to(like),
            output,
            input,
            _places([block.B for block in blocks], 0),
            _places([block.A for block in blocks], 1),
        )

    def compose(self, dtype: torch.dtype) -> None:
        """Hand every block its (s·B′, A′)."""
        b = _stack([block.B for block in self.blocks], self.rows, 0)
        b = (b if self.output is None else self.output @ b) * self.scaling
        a = _stack([block.A for block in self.blocks], self.columns, 1)
        a = a if self.input is None else a @ self.input.mT
        for block, *factors in zip(self.blocks, b.to(dtype).unbind(), a.to(dtype).unbind(), strict=True):
            block.ready = tuple(factors)


def _stack_of_bases(blocks: Sequence[LowRankBlock], name: str) -> Tensor | None:
    bases = [getattr(block, name) for block in blocks]
    if bases[0] is None:
        return None
    stack = bases[0].new_zeros(len(bases), len(bases[0]), max(basis.shape[1] for basis in bases))
    for block, basis, place in zip(blocks, bases, stack, strict=True):
        place[:, : basis.shape[1]] = basis
        setattr(block, name, place[:, : basis.shape[1]])
    return stack


def _places(factors: Sequence[Tensor], side: int) -> Tensor | None:
    """Places of the entries of ``factors`` in the flat stack of them, filled up along ``side``."""
    sizes = [list(factor.shape) for factor in factors]
    widest = max(size[side] for size in sizes)
    if all(size[side] == widest for size in sizes):
        return None
    full = [widest if axis == side else length for axis, length in enumerate(sizes[0])]
    whole = torch.arange(len(factors) * full[0] * full[1]).view(len(factors), *full)
    own = [part[: size[0], : size[1]].reshape(-1) for part, size in zip(whole, sizes, strict=True)]
    return torch.cat(own).to(factors[0].device)


def _stack(factors: Sequence[Tensor], places: Tensor | None, side: int) -> Tensor:
    if places is None:
        return torch.stack(list(factors))
    flat = torch.cat([factor.reshape(-1) for factor in factors])
    full = list(factors[0].shape)
    full[side] = max(factor.shape[side] for factor in factors)
    stack = flat.new_zeros(len(factors) * full[0] * full[1])
    return stack.index_copy(0, places, flat).view(len(factors), *full)
