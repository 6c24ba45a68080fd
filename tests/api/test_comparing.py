"""cl_complora.compare: what fails is told in the words of a caller, and nothing is written over."""

from __future__ import annotations

import json

import pytest

import cl_complora
from cl_complora import UserError
from cl_complora.compare import study
from cl_complora.compare.method import Method
from cl_complora.compare.outcomes import Outcome
from cl_complora.compare.trials import trial
from cl_complora.config import load_scenario

WHY = "killed from outside, twice; the same command goes on, or give --elsewhere or another --out"
HERE = "killed from outside, twice; the same call goes on, or give elsewhere=True or another out"


@pytest.fixture
def comparing(monkeypatch, tiny_scenario):
    """Stands in for the runs of a comparison of zeroshot, which is tested, and lora, which is not; gives what
    was asked for."""
    asked: dict[str, object] = {}

    def compare(request, out, jobs, device, allow_plugins, report=None, tell=None, **more):
        asked.update(more, metric=request.metric)
        if report is not None:
            t = trial("lora", (), 0, load_scenario(str(tiny_scenario)))
            report(t, Outcome(None, error=WHY), 1, 1)
        curve = [{"settings": {}, "told": "", "error": None, "last": 1.0, "average": 1.0, "score": 1.0}]
        curve = [curve[0] | {"retention": -1.0}, {"settings": {"a": 1}, "told": "a=1", "error": WHY}]
        methods = [
            Method("zeroshot", figures={"last": [50.0], "retention": [0.0]}),
            Method("lora", curve=curve, failed=[f"seed 0: {WHY}"]),
        ]
        return study.Comparison(request, "tiny", "zeroshot", methods)

    monkeypatch.setattr(study, "compare", compare)
    return asked


def test_failures_name_arguments_and_no_options(comparing, tiny_scenario, tmp_path, capsys):
    options = {"seeds": [0], "out": tmp_path, "progress": True}
    made = cl_complora.compare(tiny_scenario, ["zeroshot", "lora"], **options)
    for found in (made, cl_complora.load_comparison(made.folder)):
        lora = found.content["methods"]["lora"]
        assert lora["failed"] == [f"seed 0: {HERE}"]
        assert [one["error"] for one in lora["curve"]] == [None, HERE]
    assert f"lora · seed 0: {HERE}" in capsys.readouterr().out
    kept = json.loads((made.folder / "comparison.json").read_text())["methods"]["lora"]
    assert kept["failed"] == [f"seed 0: {WHY}"]  # as the command line says it, which reads the file as well


def test_a_plugin_that_is_not_allowed_is_refused_before_any_run(tiny_scenario, tiny_strategy, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(tiny_strategy.read_text() + "plugin: own:Own\n")
    with pytest.raises(UserError, match="plugin: own:Own: .*; allow it with allow_plugins=True$"):
        cl_complora.compare(tiny_scenario, ["zeroshot", own], seeds=[0], out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_what_is_asked_for_reaches_the_runs(comparing, tiny_scenario, tmp_path):
    options = {"seeds": [0], "out": tmp_path}
    cl_complora.compare(tiny_scenario, ["zeroshot", "lora"], elsewhere=True, **options)
    assert comparing == {"elsewhere": True, "metric": "last", "begins": None}
    cl_complora.compare(tiny_scenario, ["lora"], sweep={"lr": [1e-3]}, metric="harmonic", floor=-3, **options)
    assert comparing == {"elsewhere": False, "metric": "harmonic", "begins": None}


def test_a_run_made_otherwise_is_told_as_arguments_and_nothing_is_written(tiny_scenario, tmp_path):
    made = cl_complora.run(tiny_scenario, "zeroshot", out=tmp_path)
    with pytest.raises(UserError) as error:
        cl_complora.compare(tiny_scenario, ["zeroshot"], [0], {"shots": 2}, out=tmp_path)
    assert error.value.messages == (
        f"{made.folder}: this run was made with scenario.shots = 3, now it is 2; give another out, or move"
        " that folder away to have the run made anew",
    )
    assert not list((tmp_path / "tiny").glob("comparison*"))


@pytest.mark.parametrize(
    "given, told",
    [
        (
            {"scenario": "lora"},
            "a scenario is expected here; strategies are the second argument of compare()",
        ),
        ({"strategies": ["embedded"]}, "a scenario is the first argument of compare()"),
    ],
)
def test_the_function_that_is_meant_is_named(tiny_scenario, tmp_path, given, told):
    with pytest.raises(UserError) as error:
        cl_complora.compare(**({"scenario": tiny_scenario, "strategies": ["lora"], "out": tmp_path} | given))
    assert error.value.messages[0].endswith(told)
