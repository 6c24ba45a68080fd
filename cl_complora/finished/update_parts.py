"""A task's update taken apart: by tower, kind of matrix, layer, single matrix and singular direction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..clip.matrix_names import Place, place_of
from ..delta import TaskDelta

# What a part may be, coarse to fine.
COARSE = ("tower", "kind", "layer")
KINDS = (*COARSE, "matrix", "direction")


@dataclass(frozen=True)
class Piece:
    """The change of one matrix, or of another parameter as a whole.

    Attributes:
        parameter: state_dict key.
        rows: its rows in that parameter; None for all.
        change: ΔW of those rows.
        place: where it stands in the model.
    """

    parameter: str
    rows: slice | Tensor | None
    change: Tensor
    place: Place

    def add_to(self, parameters: dict[str, Tensor], scale: float) -> None:
        """Add ``scale``·ΔW in place."""
        target = parameters[self.parameter]
        change = scale * self.change.to(target)
        if self.rows is None:
            target += change
        else:
            target[self.rows] += change

    def directions(self, most: int) -> list[Piece]:
        """The leading terms σ·u·vᵀ of a matrix's change, one piece each."""
        if self.change.ndim != 2 or isinstance(self.rows, Tensor):
            return []
        u, s, vh = torch.linalg.svd(self.change.float(), full_matrices=False)
        count = min(most, int((s > 1e-6 * s[0]).sum()) if len(s) else 0)
        terms = ((s[i] * u[:, i])[:, None] * vh[i] for i in range(count))
        return [Piece(self.parameter, self.rows, term, self.place) for term in terms]


@dataclass(frozen=True)
class Part:
    """Some pieces of an update that are looked at together.

    Attributes:
        kind: one of :data:`KINDS`.
        name: ``vision``, ``fc``, ``vision 3``, ``vision 3 fc`` or ``vision 3 fc, direction 1``.
        pieces: what it holds.
    """

    kind: str
    name: str
    pieces: tuple[Piece, ...]

    @property
    def towers(self) -> set[str]:
        """Towers that it touches."""
        return {piece.place.tower for piece in self.pieces}


def pieces(delta: TaskDelta) -> list[Piece]:
    """Every matrix and other parameter that an update changes, q, k and v apart also where they moved as
    one."""
    found = []
    for parameter, rows, change in delta.updates():
        third = len(change) // 3
        if rows is None and parameter.endswith(("in_proj_weight", "qkv.weight")) and len(change) == 3 * third:
            for start in (0, third, 2 * third):
                block = slice(start, start + third)
                found.append(Piece(parameter, block, change[block], _place(parameter, block)))
        else:
            found.append(Piece(parameter, rows, change, _place(parameter, rows)))
    return found


def _place(parameter: str, rows: slice | Tensor | None) -> Place:
    return place_of(f"{parameter}[{rows.start}:{rows.stop}]" if isinstance(rows, slice) else parameter)


def coarse_parts(found: Sequence[Piece]) -> list[Part]:
    """Towers, kinds of matrix and layers."""
    grouped: dict[tuple[str, str], list[Piece]] = {}
    for piece in found:
        for kind, name in (
            ("tower", piece.place.tower),
            ("kind", piece.place.kind),
            ("layer", _layer(piece.place)),
        ):
            grouped.setdefault((kind, name), []).append(piece)
    return sorted((Part(kind, name, tuple(group)) for (kind, name), group in grouped.items()), key=_order)


def finer_parts(part: Part) -> list[Part]:
    """The matrices of a layer."""
    return [Part("matrix", _matrix(piece.place), (piece,)) for piece in part.pieces]


def directions(part: Part, most: int) -> Iterator[Part]:
    """The leading singular directions of a matrix's change."""
    for number, term in enumerate(part.pieces[0].directions(most), start=1):
        yield Part("direction", f"{part.name}, direction {number}", (term,))


def _layer(place: Place) -> str:
    """``vision 3``, or the parameter's own name outside the blocks."""
    return f"{place.tower} {place.layer if place.blocks else place.kind}"


def _matrix(place: Place) -> str:
    return f"{_layer(place)} {place.kind}" if place.blocks else _layer(place)


def _order(part: Part) -> tuple:
    first = part.pieces[0].place
    return KINDS.index(part.kind), first.tower != "vision", first.blocks, part.name
