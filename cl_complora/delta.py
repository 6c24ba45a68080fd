"""What a task added to the weights: stored as factors, rows or whole, summed, scaled, and added to a
model."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class TaskDelta:
    """What one task added to the weights: ΔW as factors where it is low-rank, whole where it is not.

    Attributes:
        factors: ``"<parameter>[start:stop]"`` → (B, A) with ΔW = B A on those rows of the parameter.
        dense: ``"<parameter>"`` → ΔW of the parameter's own shape.
        rows: ``"<parameter>"`` → (indices, ΔW of those rows); the others, most of them, did not move (a token
            embedding of which a task reads a few dozen tokens).
    """

    factors: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    dense: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def of_changes(cls, changes: Mapping[str, Tensor]) -> TaskDelta:
        """Whole changes by parameter, stored by row where fewer than half of a matrix's rows moved."""
        delta = cls()
        for parameter, change in changes.items():
            moved = change.flatten(1).any(1).nonzero().squeeze(1) if change.ndim == 2 else None
            if moved is not None and 2 * len(moved) < len(change):
                delta.rows[parameter] = (moved, change[moved])
            else:
                delta.dense[parameter] = change
        return delta

    def updates(self) -> Iterator[tuple[str, slice | Tensor | None, Tensor]]:
        """(parameter, rows or None for all, ΔW of those rows) in a fixed order."""
        for key, (b, a) in self.factors.items():
            parameter, rows = parse_rows(key)
            yield parameter, rows, b @ a
        for parameter, delta in self.dense.items():
            yield parameter, None, delta
        for parameter, (index, delta) in self.rows.items():
            yield parameter, index, delta

    def check(self) -> None:
        """Refuse what no task can have left.

        Raises:
            ValueError: naming the key whose tensors do not fit together or are not finite.
        """
        for key, (b, a) in self.factors.items():
            parse_rows(key)
            if not (b.ndim == a.ndim == 2 and b.shape[1] == a.shape[0]):
                raise ValueError(f"the factors of '{key}' have shapes {tuple(b.shape)} and {tuple(a.shape)}")
        for key, (index, value) in self.rows.items():
            if not (
                index.ndim == 1
                and index.dtype == torch.int64
                and value.ndim == 2
                and len(index) == len(value)
            ):
                raise ValueError(
                    f"the rows of '{key}' have shapes {tuple(index.shape)} and {tuple(value.shape)}"
                )
            if len(index) and int(index.min()) < 0:
                raise ValueError(f"the rows of '{key}' are counted from the end")
        values = {key: pair for key, pair in self.factors.items()} | {k: (v,) for k, v in self.dense.items()}
        for key, tensors in (values | {k: (v,) for k, (_, v) in self.rows.items()}).items():
            if not all(tensor.is_floating_point() and bool(tensor.isfinite().all()) for tensor in tensors):
                raise ValueError(f"'{key}' holds numbers that are not finite, or no numbers with a fraction")

    def __bool__(self) -> bool:
        """Whether anything was trained at all."""
        return bool(self.factors or self.dense or self.rows)

    @torch.no_grad()
    def add_to(self, parameters: dict[str, Tensor], scale: float = 1.0) -> None:
        """Add ``scale``·ΔW in place to the named tensors: the one way in which deltas enter weights.

        Raises:
            KeyError: if a parameter is missing.
            ValueError: if a shape does not fit.
        """
        for parameter, rows, delta in self.updates():
            if parameter not in parameters:
                raise KeyError(f"the delta changes '{parameter}', which this model does not have")
            whole = parameters[parameter]
            if isinstance(rows, Tensor) and (whole.ndim != 2 or len(rows) and int(rows.max()) >= len(whole)):
                raise ValueError(
                    f"delta of '{parameter}' names row {int(rows.max())}, weight {tuple(whole.shape)}"
                )
            target = whole if rows is None else whole[rows]
            if target.shape != delta.shape:
                raise ValueError(
                    f"delta of '{parameter}' has shape {tuple(delta.shape)}, weight {tuple(target.shape)}"
                )
            target += delta.to(target) if scale == 1.0 else scale * delta.to(target)
            if isinstance(rows, Tensor):  # indexing by a tensor made a copy
                whole[rows] = target

    def norm(self) -> float:
        """‖ΔW‖_F over all matrices together."""
        return math.sqrt(sum(float(delta.double().square().sum()) for _, _, delta in self.updates()))

    def part(self, parameters: Container[str]) -> TaskDelta:
        """What concerns the named parameters as wholes (not their factors)."""
        return TaskDelta(
            dense={name: value for name, value in self.dense.items() if name in parameters},
            rows={name: value for name, value in self.rows.items() if name in parameters},
        )

    def scaled(self, factor: float) -> TaskDelta:
        """factor · ΔW."""
        return TaskDelta(
            {key: (b * factor, a) for key, (b, a) in self.factors.items()},
            {key: value * factor for key, value in self.dense.items()},
            {key: (index, value * factor) for key, (index, value) in self.rows.items()},
        )

    def plus(self, other: TaskDelta) -> TaskDelta:
        """The sum of both; where both are low-rank its rank is the sum of theirs.

        Raises:
            ValueError: if one holds whole what the other holds as factors.
        """
        low = {parse_rows(key)[0] for delta in (self, other) for key in delta.factors}
        whole = {name for delta in (self, other) for name in (*delta.dense, *delta.rows)}
        if low & whole:
            raise ValueError(f"'{min(low & whole)}' is low-rank in one delta and whole in the other")
        total = TaskDelta(dict(self.factors), dict(self.dense), dict(self.rows))
        for key, (b, a) in other.factors.items():
            mine = total.factors.get(key)
            total.factors[key] = (
                (b, a) if mine is None else (torch.cat([mine[0], b], 1), torch.cat([mine[1], a]))
            )
        for key, value in other.dense.items():
            total.dense[key] = total.dense[key] + value if key in total.dense else value
        for key, (index, value) in other.rows.items():
            if key in total.rows:
                index = torch.cat([total.rows[key][0], index])
                value = torch.cat([total.rows[key][1], value])
                index, place = index.unique(return_inverse=True)
                value = value.new_zeros(len(index), value.shape[1]).index_add_(0, place, value)
            total.rows[key] = (index, value)
        for key in total.rows.keys() & total.dense.keys():
            total.dense[key] = total.dense[key].index_add(0, *total.rows.pop(key))
        return total

    def shortened(self) -> TaskDelta:
        """The same ΔW, up to rounding, in factors of no more ranks than it has.

        With B = Q R and Aᵀ = Q′ R′ (QR) the singular values of R R′ᵀ are those of B A; those below 10⁻⁷ of
        the largest are rounding of 32 bits.
        """
        factors = {}
        for key, (b, a) in self.factors.items():
            (q, r), (other, right) = torch.linalg.qr(b.double()), torch.linalg.qr(a.double().mT)
            u, sigma, vh = torch.linalg.svd(r @ right.mT, full_matrices=False)
            kept = sigma > 1e-7 * sigma[:1]
            left, into = (q @ u[:, kept]) * sigma[kept], vh[kept] @ other.mT
            factors[key] = (left.to(b.dtype), into.to(a.dtype))
        return TaskDelta(factors, dict(self.dense), dict(self.rows))

    def tensors(self) -> dict[str, Tensor]:
        """Flat mapping for safetensors; :meth:`from_tensors` reads it back."""
        flat = {f"{key}.B": b.contiguous() for key, (b, _) in self.factors.items()}
        flat |= {f"{key}.A": a.contiguous() for key, (_, a) in self.factors.items()}
        flat |= {f"{key}.dense": value.contiguous() for key, value in self.dense.items()}
        flat |= {f"{key}.index": index.contiguous() for key, (index, _) in self.rows.items()}
        return flat | {f"{key}.rows": value.contiguous() for key, (_, value) in self.rows.items()}

    @classmethod
    def from_tensors(cls, flat: dict[str, Tensor]) -> TaskDelta:
        """Inverse of :meth:`tensors`.

        Raises:
            ValueError: for a key of another kind or a factor without its partner.
        """
        delta = cls()
        pairs = {"B": ("A", delta.factors), "index": ("rows", delta.rows)}
        partners = {second: first for first, (second, _) in pairs.items()}
        for key in sorted(flat):
            stem, _, kind = key.rpartition(".")
            partner = pairs[kind][0] if kind in pairs else partners.get(kind)
            if kind == "dense":
                delta.dense[stem] = flat[key]
            elif partner is None:
                raise ValueError(f"delta file holds an unexpected tensor '{key}'")
            elif f"{stem}.{partner}" not in flat:
                raise ValueError(f"delta file holds {key} without {stem}.{partner}")
            elif kind in pairs:
                pairs[kind][1][stem] = (flat[key], flat[f"{stem}.{partner}"])
        return delta


def row_key(parameter: str, rows: slice) -> str:
    """``"name[start:stop]"``, the key of a row block in :class:`TaskDelta`."""
    return f"{parameter}[{rows.start}:{rows.stop}]"


def parse_rows(key: str) -> tuple[str, slice]:
    """Inverse of :func:`row_key`.

    Raises:
        ValueError: if the key has another form.
    """
    parameter, bracket, rest = key.rpartition("[")
    start, _, stop = rest.removesuffix("]").partition(":")
    if not (
        bracket
        and rest.endswith("]")
        and re.fullmatch("[0-9]{1,9}", start)
        and re.fullmatch("[0-9]{1,9}", stop)
    ):
        raise ValueError(f"delta key '{key}' is not of the form name[start:stop]")
    return parameter, slice(int(start), int(stop))
