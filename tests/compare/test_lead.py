"""Whether a lead is more than what its images can tell, and what tuning makes of that."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from builders.trials import outcome, tuned
from cl_complora.compare import lead
from cl_complora.compare import tuning as module
from cl_complora.compare.lead import lead_error
from cl_complora.compare.tuned import content, strategy_text
from cl_complora.compare.tuning import TuningRequest
from cl_complora.errors import UserError

LR = "optimiser.lr"


@pytest.fixture
def asked(tiny_scenario, tiny_strategy):
    return TuningRequest(str(tiny_scenario), str(tiny_strategy))


def folder(answers: dict[str, list[int]], config: dict | None = None, results: bool = True, **more):
    """A run that got these images of its tasks right."""
    told = {"tasks": list(answers), **more} if results else None
    return SimpleNamespace(
        answers=answers,
        asked=[],
        read_results=lambda: told,
        read_config=lambda: {} if config is None else config,
    )


@pytest.fixture(autouse=True)
def answered(monkeypatch):
    def right(run, config, name, state):
        run.asked.append(state)
        if config.get("damaged"):
            raise UserError("damaged")
        keys = [f"{config.get('draw', '')}{number}" for number in range(len(run.answers[name]))]
        return keys, np.array(run.answers[name], dtype=bool)

    monkeypatch.setattr(lead, "right_answers", right)


def test_the_error_is_that_of_discordant_images():
    ours = folder({"a": [1, 1, 1, 0], "b": [1, 0, 0, 0, 0]})
    other = folder({"a": [1, 0, 0, 1], "b": [0, 0, 0, 0, 0]})
    expected = 100 * math.sqrt((3 / 4 / 4 + 1 / 5 / 5) / 2**2)
    assert lead_error([ours], [other]) == pytest.approx(expected)
    assert ours.asked == other.asked == [2, 2]  # the last state's
    assert lead_error([other], [ours]) == pytest.approx(expected)
    assert lead_error([ours] * 4, [other] * 4) == pytest.approx(expected / 2)
    # One task: the lead over its error is McNemar's z, (b − c) / √(b + c).
    one, two = folder({"a": [1] * 9 + [0] * 4 + [1] * 7}), folder({"a": [0] * 9 + [1] * 4 + [1] * 7})
    assert 100 * (9 - 4) / 20 / lead_error([one], [two]) == pytest.approx(5 / math.sqrt(13))


def test_independent_tasks_are_answered_by_their_own_models():
    ours = folder({"a": [1], "b": [0], "c": [1]}, independent=True)
    assert lead_error([ours], [folder({"a": [0], "b": [0], "c": [1]})]) > 0
    assert ours.asked == [1, 2, 3]


def test_equal_answers_have_no_error():
    assert lead_error([folder({"a": [1, 0]})], [folder({"a": [1, 0]})]) == 0


@pytest.mark.parametrize(
    "other",
    [
        folder({"a": [1, 0]}, {"draw": "another"}),
        folder({"a": [1, 0, 1]}),
        folder({"a": [1, 0]}, {"damaged": True}),
        folder({"a": [1, 0]}, results=False),
    ],
)
def test_what_cannot_be_compared_has_none(other):
    whole = folder({"a": [1, 0]})
    assert lead_error([other], [whole]) is None
    assert lead_error([whole, other], [whole, whole]) is None


def rising(settings):
    return outcome(50 + 2 * (settings.get(LR, 5e-3) > 5e-3), -1)


@pytest.mark.parametrize(
    ("error", "stays"), [(1.1, True), (1.0, True), (0.9, False), (0.0, False), (None, False)]
)
def test_settings_stay_where_the_lead_is_no_more_than_two_errors(monkeypatch, asked, error, stays):
    monkeypatch.setattr(module, "lead_error", lambda ours, others: error)
    found, _ = tuned(monkeypatch, asked, rising)
    assert (found.changed(found.chosen) == ()) is stays and bool(found.stayed) is stays
    assert content(found)["stayed"] == (found.stayed or None)
    assert ("# Settings stay: the best that was tried" in strategy_text(found, Path("x.yaml"))) is stays
    if stays:
        assert "leads by 2.0 points of Last, which is no more than 2 standard errors of that difference" in (
            found.stayed
        )


def test_another_metric_and_a_start_below_the_floor_go_by_their_scores(monkeypatch, asked):
    monkeypatch.setattr(module, "lead_error", lambda ours, others: 50.0)
    by_average = TuningRequest(asked.scenario, asked.strategy, metric="average")
    assert not tuned(monkeypatch, by_average, rising)[0].stayed
    found, _ = tuned(monkeypatch, asked, lambda s: outcome(50, -1 if s.get(LR, 5e-3) < 5e-3 else -9))
    assert not found.stayed and dict(found.chosen)[LR] < 5e-3
