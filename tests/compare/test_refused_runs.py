"""A comparison of which runs were refused or lost: nothing is written over, and what is said can be done."""

from __future__ import annotations

import pickle

import pytest

from builders.commands import cli
from builders.runs import STRATEGY
from builders.trials import Here
from cl_complora.compare import worker_kinds
from cl_complora.compare.outcomes import folder_of, outcome_there
from cl_complora.compare.trial_words import of_trials
from cl_complora.compare.trials import trial
from cl_complora.compare.worker_kinds import open_workers
from cl_complora.compare.workers import Placing, run_trial
from cl_complora.config import load_scenario
from cl_complora.errors import UserError
from cl_complora.run import worker_processes
from cl_complora.store.folder import RunDir
from cl_complora.store.provenance import START_OVER, WEIGHTS


@pytest.fixture
def go(monkeypatch, capsys, tmp_path, tiny_scenario):
    """compare, whose runs are made in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker_processes, "ProcessPoolExecutor", Here)
    (tmp_path / "quick.yaml").write_text(STRATEGY.format(name="quick"))
    (tmp_path / "wild.yaml").write_text(STRATEGY.format(name="wild").replace("lr: 5e-3", "lr: 1e30"))
    common = ("compare", tiny_scenario, "--device", "cpu")
    return lambda *words, seeds="0": cli(monkeypatch, capsys, *common, "--seeds", seeds, *words)


def written(folder) -> dict[str, bytes]:
    """Name → content of what a comparison wrote."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_runs_of_other_settings_are_refused_before_any_other_is_made(go, tmp_path, monkeypatch):
    assert go("-s", "zeroshot")[0] == 0
    before = written(tmp_path / "runs" / "tiny")
    assert len(before["comparison-runs.csv"]) > 50 and "report.html" in before

    def none(*arguments: object, **options: object) -> None:
        raise AssertionError("a worker was opened")

    monkeypatch.setattr(worker_kinds, "Processes", none)
    code, _, said = go("-s", "zeroshot,quick.yaml", "--set", "shots=2")
    assert code == 2 and said == (
        "error: runs/tiny/zeroshot/seed0: this run was made with scenario.shots = 3, now it is 2; give"
        " another --out, or move that folder away to have the run made anew\n"
    )
    assert written(tmp_path / "runs" / "tiny") == before
    code, _, said = go("-s", "zeroshot,quick.yaml", "--set", "shots=2", seeds="0,1")
    assert code == 2 and said.count("error: ") == 1 and "zeroshot/seed0: this run was made with" in said


def test_a_plugin_that_is_not_allowed_is_refused_before_any_run_is_made(go, tmp_path):
    (tmp_path / "own.yaml").write_text(STRATEGY.format(name="own") + "plugin: own:Own\n")
    code, _, said = go("-s", "zeroshot,own.yaml")
    assert code == 2 and said == (
        "error: own.yaml:7: strategy 'own': plugin: own:Own: this runs Python code that is no part of"
        " cl_complora; allow it with --allow-plugins\n"
    )
    assert not (tmp_path / "runs").exists()


def test_every_run_of_other_settings_is_named(tmp_path, tiny_scenario):
    placing = Placing(tmp_path)
    trials = [trial("zeroshot", (), seed, load_scenario(str(tiny_scenario))) for seed in (0, 1)]
    assert not any(run_trial(t, placing, "cpu").error for t in trials)
    others = [trial("zeroshot", (), s, load_scenario(str(tiny_scenario), ["shots=2"])) for s in (0, 1, 2)]
    with open_workers(placing) as workers, pytest.raises(UserError) as error:
        workers.run(others, lambda *line: None)
    assert [f"seed{s}: this run was made with" in error.value.messages[s] for s in (0, 1)] == [True] * 2
    assert len(error.value.messages) == 2


def test_a_lost_run_writes_nothing_and_the_same_command_goes_on(go, tmp_path):
    words = ("-s", "zeroshot,quick.yaml", "--set", "training.steps=2")
    assert go(*words)[0] == 0
    before = written(tmp_path / "runs" / "tiny")
    again = (*words[:2], "--set", "training.steps=1")
    with RunDir.of(tmp_path / "runs", "tiny", "quick", 0, "training.steps=1").locked():
        code, _, said = go(*again)
    assert code == 2 and "the comparison lacks 1 run, without which nothing is written; the same" in said
    assert "error: quick.yaml · seed 0: " in said and "in use by" in said
    assert written(tmp_path / "runs" / "tiny") == before
    code, out, _ = go(*again)
    assert code == 0 and "zeroshot · seed 0: " in out
    assert written(tmp_path / "runs" / "tiny")["comparison.json"] != before["comparison.json"]


def test_a_run_whose_training_failed_is_left_out_of_the_table_and_told(go, tmp_path):
    code, out, _ = go("-s", "zeroshot,wild.yaml")
    assert code == 1 and "diverged" in out
    before = written(tmp_path / "runs" / "tiny")
    table = before["comparison-runs.csv"]
    assert b"zeroshot,0,last" in table and b"wild" not in table
    code, _, said = go("-s", "wild.yaml")
    assert code == 2 and said.startswith("error: no method could be tested, so nothing is written\n")
    assert "error: wild: seed 0: task 'warm'" in said and "diverged" in said
    assert written(tmp_path / "runs" / "tiny") == before


def test_an_earlier_failure_does_not_make_a_refusal_one(tmp_path, tiny_scenario, tiny_strategy):
    def wild(*settings: str):
        scenario = load_scenario(str(tiny_scenario), settings)
        return trial(str(tiny_strategy), (("optimiser.lr", 1e30),), 0, scenario)

    failed = run_trial(wild(), Placing(tmp_path), "cpu")
    assert "diverged" in failed.error and not failed.lost
    refused = run_trial(wild("shots=2"), Placing(tmp_path), "cpu")
    assert "this run was made with scenario.shots" in refused.error and refused.lost


@pytest.fixture
def moved(tmp_path, tiny_scenario, tiny_files):
    """A finished trial whose weights are now others."""
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(tiny_files[1].read_bytes())
    scenario = tmp_path / "tiny.yaml"
    scenario.write_text(tiny_scenario.read_text().replace(str(tiny_files[1]), str(weights)))
    t = trial("zeroshot", (), 0, load_scenario(str(scenario)))
    assert not run_trial(t, Placing(tmp_path / "runs"), "cpu").error
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    return t, tmp_path / "runs"


def test_no_option_of_run_alone_is_named(moved):
    t, out = moved
    outcome = run_trial(t, Placing(out), "cpu")
    assert outcome.lost and pickle.loads(pickle.dumps(outcome)) == outcome
    assert outcome.error.endswith(
        "; give the right ones (--set model.name, model.config, model.pretrained), or give another --out, or"
        " move that folder away to have the run made anew"
    )
    folder = folder_of(t, out)
    folder.results.unlink()
    folder.failure.write_text('{"error": "it does not fit its model; use --fresh to start over"}')
    assert "--fresh" not in outcome_there(t, out).error
    assert "--" not in of_trials(f"({WEIGHTS}) {START_OVER}").replace("--set", "").replace("--out", "")


def test_the_command_that_is_meant_is_named(go, monkeypatch, capsys):
    code, _, said = cli(monkeypatch, capsys, "compare", "lora")
    assert code == 2 and "a scenario is expected here; strategies are given with --strategies\n" in said
    code, _, said = go("-s", "embedded")
    assert code == 2 and "a scenario is the first argument of 'cl-complora compare'\n" in said
    code, _, said = cli(monkeypatch, capsys, "tune", "embedded", "--strategy", "embedded")
    assert code == 2 and "a scenario is the first argument of 'cl-complora tune'\n" in said
