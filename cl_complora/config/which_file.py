"""Scenario or strategy: which of the two a file, or a key of one, is for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .faults import Fault, closest
from .scenario import Scenario
from .strategy import Strategy

SCHEMAS: dict[str, type[Scenario] | type[Strategy]] = {"scenario": Scenario, "strategy": Strategy}


def kind_of(data: Any) -> str | None:
    """``scenario`` or ``strategy``: which of the two the keys of a file are for; None where they do not
    tell."""
    keys = list(data)[:50] if isinstance(data, dict) else []
    for judge in (lambda key, own: key in own, lambda key, own: closest(key, own) is not None):
        scores = {kind: sum(judge(key, own_keys(kind)) for key in keys) for kind in SCHEMAS}
        if scores["scenario"] != scores["strategy"]:
            return max(scores, key=lambda kind: scores[kind]) if 0 in scores.values() else None
    return None


def own_keys(kind: str) -> list[str]:
    """Outermost keys that only this kind of file has."""
    other = SCHEMAS["strategy" if kind == "scenario" else "scenario"]
    return [key for key in SCHEMAS[kind].model_fields if key not in other.model_fields]


def with_its_file(fault: Fault, kind: str) -> Fault:
    """The fault, with a word on an outermost key that the other kind of file has."""
    other = "strategy" if kind == "scenario" else "scenario"
    if not fault.unknown or len(fault.path) > 1 or fault.path[0] not in own_keys(other):
        return fault
    belongs = f"unknown key in a {kind}; it belongs in a {other} (or --set {other}.{fault.path[0]}.…=…);"
    return replace(fault, sentence=f"{belongs} allowed: {fault.sentence.rpartition('allowed: ')[2]}")
