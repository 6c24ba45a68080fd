"""What a strategy trains, in a few words that are derived from its settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from .adaptation import Adapter, Matrix
from .factors import FIXED_A
from .heads import Head, LinearProbe, TipAdapter
from .strategy import Strategy
from .training import Whole

# Linear maps of a transformer block; "other" are those of further kinds of towers.
_OF_A_BLOCK = tuple(kind for kind in get_args(Matrix) if kind != "other")
_HEADS = {
    "linear-probe": "logistic regression",
    "nearest-mean": "class means",
    "linear": "linear head",
    "lp++": "linear probe beside the texts",
    "ridge": "ridge regression",
    "tip-adapter": "keys of a cache",
    "rada": "attention mask",
    "lfa": "map of image features",
}
_BETWEEN = {
    "gates": "gates of ranks",
    "directions": "lengths of earlier updates",
    "heads": "gains of heads",
    "budget": "values of ranks",
}


def trained(strategy: Strategy) -> str:
    """Shape and place of everything that moves, such as ``rank 8 of q, k, v; tokens``.

    ``nothing`` where neither weights nor a head are fitted.
    """
    parts = [*_weights(strategy.adapter), *([_head(strategy.head)] if strategy.head is not None else [])]
    if strategy.plugin is not None:
        parts.append("what its plugin trains")
    return "; ".join(parts) or "nothing"


def _weights(adapter: Adapter) -> list[str]:
    if adapter.kind == "none":
        return []
    where = "" if len(adapter.towers) > 1 else f", {adapter.towers[0]} tower"
    if not where and adapter.merge_kind == "image-tower":
        where = ", the image tower's kept"
    if adapter.kind == "full":
        kinds = adapter.trained_whole
        return [("all weights" if set(kinds) == set(get_args(Whole)) else _listed(kinds)) + where]
    matrices = "all matrices" if set(_OF_A_BLOCK) <= set(adapter.matrices) else _listed(adapter.matrices)
    blocks = "" if adapter.layers is None else f", blocks {_listed(map(str, adapter.layers))}"
    found = [f"{_shape(adapter)} of {matrices}{where}{blocks}"]
    if adapter.between_kind in _BETWEEN:
        found.append(_BETWEEN[adapter.between_kind])
    found += ["lengths of rows"] if adapter.row_scale else []
    return found + [_listed(adapter.trained_whole)] * bool(adapter.trained_whole)


def _shape(adapter: Adapter) -> str:
    """Rank and form of the factors."""
    rank = f"{adapter.rank} to {adapter.rank_last}" if adapter.rank_last is not None else str(adapter.rank)
    if adapter.start.kind == "core":
        return f"cores of rank {rank}"
    if adapter.start.kind in FIXED_A:
        return f"B of rank {rank}"
    if adapter.between_kind == "experts":
        return f"{rank} experts of rank 1"
    if adapter.between_kind == "boosters":
        return f"boosters of rank {rank}"
    return f"rank {rank}"


def _head(head: Head) -> str:
    if isinstance(head, TipAdapter) and not head.train:
        return "weights of a cache" if head.alpha is None or head.beta is None else "a cache"
    both = isinstance(head, LinearProbe) and head.with_untouched
    return _HEADS[head.kind] + " on both image towers" * both


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
