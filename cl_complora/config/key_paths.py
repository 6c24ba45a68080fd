"""Key paths of all settings, to find the one that somebody meant."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

# What people mean by a name that several settings have, and what they call otherwise.
USUAL = {
    "lr": "optimiser.lr",
    "learning_rate": "optimiser.lr",
    "wd": "optimiser.weight_decay",
    "rank": "adapter.rank",
    "r": "adapter.rank",
    "energy": "adapter.subspace.keep.energy",
    "steps": "training.steps",
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "bs": "training.batch_size",
}
_MOST = 3
_DEEPEST = 4


@cache
def key_paths(*schemas: type[BaseModel]) -> tuple[str, ...]:
    """``training.steps``, ``optimiser.lr``, … of every setting that the schemas may hold, in their order."""
    found = [path for schema in schemas for path in _paths(schema, (), _DEEPEST)]
    return tuple(dict.fromkeys(".".join(path) for path in found))


def _paths(schema: type[BaseModel], before: tuple[str, ...], depth: int) -> Iterator[tuple[str, ...]]:
    for name, field in schema.model_fields.items():
        path = (*before, field.alias or name)
        yield path
        if depth > 1:
            for inner in _models(field.annotation):
                yield from _paths(inner, path, depth - 1)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Schemas that a section may be; those in lists are left out, whose paths need an index."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for part in typing.get_args(annotation):
            yield from _models(part)


def meant(key: str, known: Sequence[str]) -> list[str]:
    """Paths that a mistaken key may stand for, the likeliest first; none where nothing is near.

    Args:
        key: as it was given (``steps``, ``train.steps``, ``lr``).
        known: :func:`key_paths`.
    """
    last = key.rpartition(".")[2]
    if USUAL.get(last) in known:
        return [USUAL[last]]
    same = [path for path in known if path.rpartition(".")[2] == last]
    if same:
        return sorted(same, key=lambda path: -difflib.SequenceMatcher(None, path, key).ratio())[:_MOST]
    return difflib.get_close_matches(key, known, n=1, cutoff=0.75)
