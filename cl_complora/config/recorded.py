"""The scenario and the strategy that a run's config.yaml records, read again.

A run records every setting, also those that its files leave at their defaults; a schema refuses many of
them where they have no effect. So what is recorded at its default counts as not said, unless something else
would be read in its place: momentum is 0.9 by default, and 0.95 where the optimiser is muon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from .faults import sections
from .scenario import Scenario
from .strategy import Strategy

_Settings = TypeVar("_Settings", Scenario, Strategy)


def recorded(schema: type[_Settings], settings: Mapping[str, Any]) -> _Settings:
    """The scenario or the strategy of a run.

    Args:
        schema: which of the two.
        settings: ``scenario`` or ``strategy`` of its config.yaml.

    Raises:
        pydantic.ValidationError: for settings that this version does not take.
    """
    if not isinstance(settings, Mapping):
        return schema.model_validate(settings)
    said = _said(schema, settings)
    read = schema.model_validate(said).model_dump(mode="json")
    return schema.model_validate(_restored(said, settings, read))


def with_drift_as_it_was(settings: Any, strategy: Strategy, protocol: str | None) -> Any:
    """A recorded strategy with the drift compensation that its run had: none, where its version did not know
    ``head.drift``, which is on by default today.

    Args:
        settings: ``strategy`` of a run's config.yaml.
        strategy: of now.
        protocol: of the run's scenario.
    """
    head = settings.get("head") if isinstance(settings, Mapping) else None
    if strategy.carries_head(protocol) and isinstance(head, Mapping) and "drift" not in head:
        return {**settings, "head": {**head, "drift": None}}
    return settings


def learned_at_once(config: Mapping[str, Any] | None) -> bool:
    """Whether a run learns all tasks together in place of the first (``training.stream: joint``).

    Args:
        config: its config.yaml; None where there is none.
    """
    training = ((config or {}).get("strategy") or {}).get("training") or {}
    return training.get("stream") == "joint"


def learning_states(config: Mapping[str, Any] | None, tasks: int) -> list[int]:
    """The state that each task of a run was learned in, 0 the untouched model: the row of the accuracy
    matrix where it was just trained.

    Args:
        config: as for :func:`learned_at_once`.
        tasks: of the stream.
    """
    return [1] * tasks if learned_at_once(config) else list(range(1, tasks + 1))


def _said(schema: type[BaseModel], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those at their defaults; what tells the kind of a part stays."""
    kept = {}
    for key, value in settings.items():
        field = schema.model_fields.get(key)
        if field is not None and key != "kind" and not field.is_required():
            if value == to_jsonable_python(field.get_default(call_default_factory=True)):
                continue
        kept[key] = value if field is None else _part(field.annotation, value)
    return kept


def _restored(
    said: Mapping[str, Any], recorded: Mapping[str, Any], read: Mapping[str, Any]
) -> dict[str, Any]:
    """What is said, and what was recorded but would be read as something else."""
    kept = dict(said)
    for key, value in recorded.items():
        found = read.get(key, value)
        if found == value:
            continue
        both = isinstance(value, Mapping) and isinstance(found, Mapping)
        kept[key] = _restored(said.get(key) or {}, value, found) if both else value
    return kept


def _part(annotation: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [_part(annotation, one) for one in value]
    if not isinstance(value, Mapping):
        return value
    fitting = [schema for schema in sections(annotation) if _is_kind(schema, value)]
    return _said(fitting[0], value) if len(fitting) == 1 else value


def _is_kind(schema: type[BaseModel], value: Mapping[str, Any]) -> bool:
    kind = schema.model_fields.get("kind")
    return kind is None or value.get("kind") in (*get_args(kind.annotation), kind.default)
