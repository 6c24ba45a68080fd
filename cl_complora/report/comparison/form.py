"""comparison.json as it must be to be shown: whoever wrote it, its seeds become names of folders."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...store.forms import Form, Number

_Seeds = list[Annotated[int, Field(ge=0)]]


class _Request(Form):
    scenario: str
    strategies: list[str]
    seeds: _Seeds
    sweep_seeds: _Seeds = []
    sweep: dict[str, list[float]] | None = None
    metric: str = ""
    floor: float | None = None
    reference: str = ""
    validation_shots: int | None = None
    scenario_settings: list[str] = []
    strategy_settings: list[str] = []


class _Point(Form):
    settings: dict[str, float]
    told: str
    error: str | None
    last: Number = None
    average: Number = None
    retention: Number = None
    score: Number = None


class _Difference(Form):
    mean: float
    low: float
    high: float
    verdict: str


class _Row(Form):
    task: str
    learned: Number = None
    last: Number = None


class _Method(Form):
    name: str
    chosen: dict[str, float]
    curve: list[_Point]
    figures: dict[str, list[Number]]
    differences: dict[str, _Difference]
    budget: dict[str, float]
    updates: dict[str, Number]
    per_task: list[_Row]
    failed: list[str]


class ComparisonForm(Form):
    """comparison.json."""

    scenario: str
    reference: str
    request: _Request
    methods: Annotated[dict[str, _Method], Field(min_length=1)]
