"""A task's update taken apart: by tower, kind of matrix, layer, single matrix and singular direction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..clip.matrix_names import Place, numbered, place_of
from ..delta import TaskDelta

# What a part may be, coarse to fine.
COARSE = ("tower", "kind", "layer")
KINDS = (*COARSE, "matrix", "direction")
# What a tower is called in the names of its parameters.
_TOWERS = ("visual", "vision_model", "trunk")


@dataclass(frozen=True)
class Piece:
    """The change of one matrix, or of another parameter as a whole.

    Attributes:
        parameter: state_dict key.
        rows: its rows in that parameter; None for all.
        change: ΔW of those rows.
        place: where it stands in the model.
        name: what no other piece of the update is called: ``vision 3 fc``, or with the parameter's own name
            where several are of one kind (``vision 3 mlp.c_fc.bias``).
        direction: number of the singular direction that it is alone; 0 for the whole change.
    """

    parameter: str
    rows: slice | Tensor | None
    change: Tensor
    place: Place
    name: str
    direction: int = 0

    @property
    def key(self) -> tuple[Hashable, ...]:
        """Which change of the update it is."""
        rows = self.rows
        which = tuple(rows.tolist()) if isinstance(rows, Tensor) else rows and (rows.start, rows.stop)
        return self.parameter, which, self.direction

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
        return [replace(self, change=term, direction=i) for i, term in enumerate(terms, start=1)]


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
                found.append((parameter, block, change[block]))
        else:
            found.append((parameter, rows, change))
    keys = [f"{p}[{rows.start}:{rows.stop}]" if isinstance(rows, slice) else p for p, rows, _ in found]
    places = [place_of(key) for key in keys]
    names = _told_apart(keys, places)
    return [Piece(*one, *told) for one, *told in zip(found, places, names, strict=True)]


def _told_apart(keys: Sequence[str], places: Sequence[Place]) -> list[str]:
    """A name for each: by place, where several would share that by parameter, and else the whole key."""
    names = [f"{_block(place)} {place.kind}" for place in places]
    for other in ([f"{_block(p)} {_within(key)}" for key, p in zip(keys, places, strict=True)], keys):
        counts = Counter(names)
        names = [own if counts[name] > 1 else name for name, own in zip(names, other, strict=True)]
    return names


def _within(key: str) -> str:
    """What a parameter is called within its block, or within its tower."""
    parts = numbered(key).split(".")
    around = [place for place, part in enumerate(parts[:-1]) if part in _TOWERS or part.isdecimal()]
    return ".".join(parts[max(around, default=-1) + 1 :])


def coarse_parts(found: Sequence[Piece]) -> list[Part]:
    """Towers, kinds of matrix and layers."""
    grouped: dict[tuple[str, str], list[Piece]] = {}
    for piece in found:
        for kind, name in (
            ("tower", piece.place.tower),
            ("kind", piece.place.kind),
            ("layer", _block(piece.place) if piece.place.blocks else piece.name),
        ):
            grouped.setdefault((kind, name), []).append(piece)
    return sorted((Part(kind, name, tuple(group)) for (kind, name), group in grouped.items()), key=_order)


def finer_parts(part: Part) -> list[Part]:
    """The matrices of a layer."""
    return [Part("matrix", piece.name, (piece,)) for piece in part.pieces]


def directions(part: Part, most: int) -> Iterator[Part]:
    """The leading singular directions of a matrix's change."""
    for number, term in enumerate(part.pieces[0].directions(most), start=1):
        yield Part("direction", f"{part.name}, direction {number}", (term,))


def _block(place: Place) -> str:
    """``vision 3``; the tower alone outside its blocks."""
    return f"{place.tower} {place.layer}" if place.blocks else place.tower


def _order(part: Part) -> tuple:
    first = part.pieces[0].place
    return KINDS.index(part.kind), first.tower != "vision", first.blocks, part.name
