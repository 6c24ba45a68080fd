"""A method that cannot work with the scenario or the model is told as such, and costs no other its row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders.commands import cli
from builders.runs import STRATEGY
from builders.trials import Here, outcome
from cl_complora.compare.outcomes import Outcome
from cl_complora.compare.study import Request, compare, prepare
from cl_complora.compare.trials import trial
from cl_complora.compare.workers import Placing, run_trial
from cl_complora.config import load_scenario
from cl_complora.errors import UserError
from cl_complora.run import worker_processes
from cl_complora.store.folder import RunDir

# Of zscl, for which the scenario then has no pictures to be held to.
WITHOUT = "reference=null"
WHY = "scenario 'tiny' has no reference set, which strategy 'zscl' needs"


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    """Runs are made in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker_processes, "ProcessPoolExecutor", Here)
    (tmp_path / "quick.yaml").write_text(STRATEGY.format(name="quick"))


@pytest.fixture
def go(monkeypatch, capsys, tiny_scenario):
    common = ("--seeds", "0,1", "--device", "cpu", "--set", WITHOUT)
    return lambda *words: cli(monkeypatch, capsys, "compare", tiny_scenario, *common, *words)


def test_the_others_make_a_table_and_it_is_told(go, tmp_path):
    code, out, said = go("-s", "zeroshot,zscl")
    assert code == 1 and f"zscl, seed 0: {WHY}" in out and "goes on with what is there" not in out + said
    table = (tmp_path / "runs" / "tiny" / "comparison-runs.csv").read_text()
    assert "zeroshot,0,last" in table and "zscl" not in table


def test_where_nothing_can_be_tested_the_reason_is_all(go, tmp_path):
    code, _, said = go("-s", "zscl")
    assert code == 2 and said.endswith(
        f"error: {WHY}; add reference: {{source: …, images: …}} to the scenario\n"
    )
    assert said.count("error: ") == 1 and not list((tmp_path / "runs").rglob("comparison*"))


def test_one_that_no_value_makes_fit_is_left_out_of_the_tests(tiny_scenario, tmp_path):
    request = Request(
        str(tiny_scenario),
        ("quick.yaml", "zscl"),
        (0,),
        sweep={"optimiser.lr": [1e-3, 5e-3]},
        validation_shots=2,
        scenario_settings=(WITHOUT,),
    )
    found = compare(request, tmp_path / "runs", device="cpu")
    quick, zscl = found.methods
    assert quick.figures and not quick.failed and len(quick.curve) == 2
    assert not zscl.curve and len(zscl.failed) == 1
    assert zscl.failed[0].startswith(f"on validation shots: {WHY}")
    assert [t.method for t, _ in found.trials if not t.validation] == ["quick.yaml"]
    with pytest.raises(UserError) as error:
        compare(replace(request, strategies=("zscl",)), tmp_path / "runs", device="cpu")
    assert len(error.value.messages) == 1 and error.value.messages[0].startswith(WHY)


def test_a_value_that_does_not_fit_is_out(tiny_scenario):
    sweep = {"adapter.rank": [2, 5000]}
    request = Request(str(tiny_scenario), ("quick.yaml",), (0,), sweep=sweep, validation_shots=2)
    prepared = prepare(request)
    unfit = Outcome(None, error="does not fit", refused=True)
    (method,) = prepared.choose([outcome(50.0), unfit]).values()
    assert method.chosen == (("adapter.rank", 2),) and not method.failed
    assert [p["error"] for p in method.curve] == [None, "does not fit"]
    with pytest.raises(UserError, match="the sweep lacks 1 run"):
        prepared.choose([outcome(50.0), replace(unfit, lost=True)])


def told_of(t, out):
    found = run_trial(t, Placing(out), "cpu")
    assert found.results is None
    return found.refused, found.lost


def test_only_what_never_fits_is_told_apart_from_what_may_be_lost(tiny_scenario, tmp_path):
    scenario = load_scenario(str(tiny_scenario), [WITHOUT])
    assert told_of(trial("zscl", (), 0, scenario), tmp_path) == (True, False)
    with RunDir.of(tmp_path, "tiny", "zeroshot", 0).locked():
        assert told_of(trial("zeroshot", (), 0, scenario), tmp_path) == (True, True)
    (tmp_path / "own.py").write_text("")
    text = STRATEGY.format(name="own") + "plugin: own:Mine\n"
    (tmp_path / "own.yaml").write_text(text)
    assert told_of(trial("own.yaml", (), 0, scenario), tmp_path) == (True, True)  # not allowed, today
    (tmp_path / "w.safetensors").write_bytes(b"none")
    elsewhere = load_scenario(str(tiny_scenario), [f"model.pretrained={tmp_path / 'w.safetensors'}"])
    assert told_of(trial("zeroshot", (), 1, elsewhere), tmp_path) == (True, True)


def test_what_keeps_every_run_from_beginning_is_told_once(go, tmp_path):
    """Weights that cannot be read: to say that the same command goes on would be false."""
    (tmp_path / "w.safetensors").write_bytes(b"none")
    code, _, said = go("-s", "zeroshot,quick.yaml", "--set", f"model.pretrained={tmp_path / 'w.safetensors'}")
    assert code == 2 and said.count("error: ") == 1 and "w.safetensors" in said
    assert "goes on with what is there" not in said and not list(tmp_path.rglob("comparison*"))


def test_one_of_which_no_value_could_be_trained_costs_no_other_its_row(tiny_scenario):
    sweep = {"optimiser.lr": [1e-3, 5e-3]}
    request = Request(str(tiny_scenario), ("quick.yaml", "lora"), (0,), sweep=sweep, validation_shots=2)
    prepared, wild = prepare(request), outcome(0.0, error="diverged")
    quick, lora = prepared.choose([wild, wild, outcome(50.0), outcome(60.0)]).values()
    (told,) = quick.failed
    assert "no swept value could be trained: diverged" in told and len(quick.curve) == 2
    assert lora.chosen == (("optimiser.lr", 5e-3),) and not lora.failed
    assert {t.method for t in prepared.tests({"quick.yaml": quick, "lora": lora})} == {"lora"}
    with pytest.raises(UserError, match="no swept value could be trained"):
        prepare(replace(request, strategies=("quick.yaml",))).choose([wild, wild])
