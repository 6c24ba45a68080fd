"""How settings are chosen: on validation shots, by a score, among those that keep enough of what the model
knew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..config import Scenario, load_scenario
from ..config.loading import Located
from ..config.overrides import key_of, set_twice, written
from ..errors import UserError
from ..metrics import keeps
from ..report.comparison.tables import told
from .outcomes import Outcome
from .trials import Settings

# What settings may be chosen by; each is larger where better.
SCORES: dict[str, Callable[[dict], float]] = {
    "last": lambda r: 100 * r["last"],
    "average": lambda r: 100 * r["average"],
    "harmonic": lambda r: _harmonic(100 * r["last"], 100 * _zero_shot(r)),
}

# One combination of settings and its figures: ``settings``, ``told``, ``error`` and, where that is None,
# ``last``, ``average`` (percent), ``retention`` (points, NaN where none is measured) and ``score``.
Point = dict[str, Any]


def for_validation(scenario: str, settings: Sequence[str], shots: int) -> Located[Scenario]:
    """The scenario measured on validation shots.

    Args:
        scenario: name or path.
        settings: ``key.path=value`` for it.
        shots: validation images a class, where it names none itself.
    """
    own = load_scenario(scenario, settings).value.validation_shots
    return load_scenario(scenario, [*settings, f"validation_shots={own or shots}", "measure=validation"])


def refuse_shots_twice(settings: Sequence[str], shots: int | None) -> None:
    """Refuse validation images a class that are said both as a setting and with their option.

    Raises:
        UserError: naming both.
    """
    said = [text for text in settings if key_of(text, "scenario") == "validation_shots"]
    if said and shots is not None:
        raise set_twice(written(said[-1]), f"--validation-shots {shots}")


def known_metric(metric: str) -> None:
    """Refuse what is no score.

    Raises:
        UserError: naming what is allowed.
    """
    if metric not in SCORES:
        raise UserError(f"--metric {metric}: must be one of {', '.join(SCORES)}")


def check_metric_of(metric: str, scenario: Scenario) -> None:
    """Refuse to choose by what a stream does not have.

    Raises:
        UserError: for the average of independent tasks.
    """
    if metric == "average" and scenario.independent:
        raise UserError("--metric average: independent tasks have none; choose by last or harmonic")


def check_floor(floor: float | None) -> None:
    """Refuse a floor that only a gain would reach: what is typed without its sign is meant as a loss.

    Raises:
        UserError: for one above zero.
    """
    if floor is not None and floor > 0:
        meant = f"{-floor:g} is a loss of at most {floor:g} points"
        raise UserError(f"--floor {floor:g}: must be at most 0; {meant}")


def point(settings: Settings, outcomes: Sequence[Outcome], metric: str) -> Point:
    """One combination of settings: its figures on validation shots, means over the seeds."""
    errors = [o.error for o in outcomes if o.error]
    found: Point = {
        "settings": dict(settings),
        "told": told(settings),
        "error": errors[0] if errors else None,
    }
    if not errors:
        results = [o.results for o in outcomes]
        # Independent tasks have no average over a stream.
        found |= {
            key: float(np.mean([np.nan if r[key] is None else 100 * r[key] for r in results]))
            for key in ("last", "average")
        }
        found["retention"] = float(np.mean([_retention(r) for r in results]))
        found["score"] = float(np.mean([SCORES[metric](r) for r in results]))
    return found


def choose(name: str, curve: Sequence[Mapping[str, Any]], floor: float | None) -> Settings:
    """The combination with the best score among those above the floor, or the one nearest to it where none
    is; of equals the first.

    Args:
        name: of the strategy.
        curve: every combination tried, as :func:`point` makes it.
        floor: smallest retention in points; None for any.

    Raises:
        UserError: if none could be trained.
    """
    points = [p for p in curve if p["error"] is None]
    if not points:
        if curve:
            raise UserError(f"strategy '{name}': no swept value could be trained: {curve[0]['error']}")
        return ()
    if floor is not None and any(p["retention"] == p["retention"] for p in points):
        eligible = [p for p in points if keeps(p["retention"], floor)]
        points = eligible or [_first_best(points, "retention")]
    return tuple(_first_best(points, "score")["settings"].items())


def _first_best(points: Sequence[Mapping[str, Any]], figure: str) -> Mapping[str, Any]:
    """Rounded, so that what differs by the order of a sum alone is equal."""
    return max(points, key=lambda p: round(p[figure], 8))


def _zero_shot(results: dict) -> float:
    """Zero-shot accuracy that a stream ends with, or the mean over the models of independent tasks."""
    after = slice(1, None) if results.get("independent") else slice(-1, None)
    values = [np.mean(values[after]) for values in results["zero_shot"].values()]
    return float(np.mean(values)) if values else np.nan


def _harmonic(one: float, other: float) -> float:
    return 2 * one * other / (one + other) if one + other > 0 else 0.0


def _retention(results: dict) -> float:
    return float(np.mean(list(results["retention"].values()))) if results["retention"] else np.nan
