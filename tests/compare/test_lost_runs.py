"""What the machine took from a sweep is no reason to choose another value."""

from __future__ import annotations

import json

import pytest
import torch

from builders.runs import STRATEGY
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.compare.outcomes import folder_of, outcome_there
from cl_complora.compare.study import Request, compare
from cl_complora.compare.trials import Trial, trial
from cl_complora.compare.workers import Placing, run_trial
from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.store.folder import RunDir


@pytest.fixture
def request_(tiny_scenario, tiny_strategy) -> Request:
    return Request(
        str(tiny_scenario),
        (str(tiny_strategy),),
        (0,),
        sweep={"optimiser.lr": [0.001, 0.002]},
        validation_shots=2,
    )


def test_a_run_in_use_elsewhere_ends_the_sweep_and_the_same_command_goes_on(request_, tmp_path):
    folder = RunDir.of(tmp_path, "tiny", "quick", 0, "validation,optimiser.lr=0.002")
    with folder.locked(), pytest.raises(UserError) as error:
        compare(request_, tmp_path)
    assert "the sweep lacks 1 run, without which nothing is chosen" in error.value.messages[0]
    assert "lr=0.002" in error.value.messages[1] and "in use by" in error.value.messages[1]
    tested = [path for path in tmp_path.rglob("results.json") if "validation" not in str(path)]
    assert not tested
    found = compare(request_, tmp_path)
    assert [p["error"] for p in found.methods[0].curve] == [None, None]


def test_too_little_memory_is_no_failure_of_a_value(tiny_scenario, tiny_strategy, tmp_path, monkeypatch):
    real = ClipClassifier.answers

    def refuse(self, features, *rest):
        if torch.is_grad_enabled():
            raise MemoryError
        return real(self, features, *rest)

    strategy = load_strategy(str(tiny_strategy))
    t = Trial("quick", (), 0, False, load_scenario(str(tiny_scenario)), strategy, "")
    monkeypatch.setattr(ClipClassifier, "answers", refuse)
    lost = run_trial(t, Placing(tmp_path), "cpu")
    assert lost.lost and not lost.refused and "the memory of cpu does not suffice" in lost.error
    assert folder_of(t, tmp_path).config.exists() and outcome_there(t, tmp_path) is None
    monkeypatch.undo()
    assert run_trial(t, Placing(tmp_path), "cpu").error is None


def test_a_fault_of_ours_costs_its_run_and_not_the_others(
    tiny_scenario, tiny_strategy, tmp_path, monkeypatch, capsys
):
    def broken(self, features, *rest):
        raise KeyError("nobody thought of this")

    t = Trial("quick", (), 0, False, load_scenario(str(tiny_scenario)), load_strategy(str(tiny_strategy)), "")
    monkeypatch.setattr(ClipClassifier, "answers", broken)
    lost = run_trial(t, Placing(tmp_path), "cpu")
    assert lost.lost and not lost.refused and lost.error == "KeyError: 'nobody thought of this'"
    assert "Traceback" in capsys.readouterr().err, "where it comes from is told to those who can mend it"
    monkeypatch.undo()
    assert run_trial(t, Placing(tmp_path), "cpu").error is None


def test_a_value_that_cannot_be_trained_is_left_out_as_before(request_, tmp_path):
    request = Request(
        request_.scenario,
        request_.strategies,
        (0,),
        sweep={"optimiser.lr": [0.001, 1e30]},
        validation_shots=2,
    )
    found = compare(request, tmp_path)
    (method,) = found.methods
    assert method.chosen == (("optimiser.lr", 0.001),)
    assert [bool(p["error"]) for p in method.curve] == [False, True]
    assert json.loads(next(tmp_path.rglob("failed.json")).read_text())["error"].startswith("task ")


OWN = """
from cl_complora.engine.regularisers import RegulariserPlugin


class Failing(RegulariserPlugin):
    def __init__(self, settings, adapter, seed):
        super().__init__()

    def penalty(self, *given):
        return 0.0

    def before_training_exp(self, strategy, *given, **more):
        raise ValueError("of its own")
"""


def test_what_code_of_the_users_own_ends_is_a_failure_with_its_line(tiny_scenario, tmp_path):
    (tmp_path / "failing.py").write_text(OWN)
    own = tmp_path / "own.yaml"
    own.write_text(STRATEGY.format(name="own") + "plugin: failing:Failing\n")
    outcome = run_trial(
        trial(str(own), (), 0, load_scenario(str(tiny_scenario))),
        Placing(tmp_path / "runs", allow_plugins=True),
        "cpu",
    )
    assert outcome.error.startswith(f"{own}:7: strategy 'own': plugin: failing:Failing: before_training_exp")
    assert not outcome.lost and not outcome.refused
