"""The strategy that a run's config.yaml records, read again.

A run records every setting, also those that its strategy leaves at their defaults; a schema refuses many of
them where they have no effect. So what is recorded at its default counts as not said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from .faults import sections
from .strategy import Strategy


def recorded_strategy(settings: Mapping[str, Any]) -> Strategy:
    """The strategy of a run.

    Args:
        settings: ``strategy`` of its config.yaml.

    Raises:
        pydantic.ValidationError: for settings that this version does not take.
    """
    return Strategy.model_validate(_said(Strategy, settings))


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
