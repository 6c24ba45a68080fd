"""Accuracy along the update of a task: it begins without the task and ends at the run."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from builders.caption_tasks import with_captions
from builders.commands import cli
from builders.measured import on_own_stream
from cl_complora.config import load_scenario, load_strategy
from cl_complora.finished import update_curve
from cl_complora.finished.states import State, find_state, open_run
from cl_complora.finished.update_curve import Curve, curves_along
from cl_complora.report.run.curve_figure import scaling_figure
from cl_complora.run.stream import run


def test_a_curve_begins_without_the_task_and_ends_at_the_run(tiny_run):
    curves = curves_along(find_state(tiny_run.folder), ["warm", "cold"], (1.0, 0.0, 0.5, 1.0))
    results = tiny_run.results
    recorded = dict(zip(results["tasks"], results["accuracy"][-1], strict=True))
    recorded["colours"] = results["zero_shot"]["colours"][-1]
    for curve in curves:
        assert curve.factors == (0.0, 0.5, 1.0)
        for place, factor in enumerate(curve.factors):
            alone = on_own_stream(open_run(tiny_run.folder, scale={curve.task: factor}), own=False)
            assert {name: values[place] for name, values in curve.accuracy.items()} == {
                one.name: one.accuracy for one in alone
            }
        assert {name: values[-1] for name, values in curve.accuracy.items()} == recorded
    warm, cold = curves
    assert (warm.earlier, warm.later) == ((), ("cold",)) and (cold.earlier, cold.later) == (("warm",), ())
    assert list(cold.lines()) == ["this task", "earlier tasks", "zero-shot colours"]
    assert cold.lines()["earlier tasks"] == cold.accuracy["warm"]


def test_other_edits_hold_along_a_curve(tiny_run):
    told: list[str] = []
    state = find_state(tiny_run.folder, scale={"cold": 0.0})
    (curve,) = curves_along(state, ["warm"], (0.0, 1.0), told.append)
    assert len(told) == 2
    for place, after in enumerate(("0", "1")):
        alone = {one.name: one.accuracy for one in on_own_stream(open_run(tiny_run.folder, after), False)}
        assert {name: values[place] for name, values in curve.accuracy.items()} == alone


@pytest.mark.parametrize("form", ["svg", "png", "pdf"])
def test_curves_are_printed_and_drawn(form, tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ("eval", tiny_run.folder, "--curve", "each", "--factors", "0,1,1.5", "--plot", f"curve.{form}")
    code, out, err = cli(monkeypatch, capsys, *words)
    assert code == 0, err
    assert out.count("accuracy % along the update of") == 2 and f"curve.{form} written" in out
    drawn = (tmp_path / f"curve.{form}").read_bytes()
    assert drawn.startswith({"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[form])
    code, out, err = cli(monkeypatch, capsys, *words, "--json")
    assert code == 0 and [one["task"] for one in json.loads(out)] == ["warm", "cold"]
    assert set(json.loads(out)[0]["accuracy"]) == {"warm", "cold", "colours"}
    assert not (tiny_run.folder / "curve.svg").exists()


def test_each_leaves_out_what_has_its_factor_already(tiny_run, tmp_path, monkeypatch, capsys):
    words = ("eval", tiny_run.folder, "--plot", tmp_path / "curve.svg", "--factors", "0,1", "--curve", "each")
    code, out, err = cli(monkeypatch, capsys, *words, "--without", "cold")
    assert code == 0, err
    assert "no curve of cold: --without or --scale sets its factor at every point" in out
    assert out.count("accuracy % along the update of") == 1 and "along the update of 'warm'" in out
    code, out, err = cli(monkeypatch, capsys, *words, "--scale", "warm=0.5", "--json")
    assert code == 0 and [one["task"] for one in json.loads(out)] == ["cold"], err
    code, _, err = cli(monkeypatch, capsys, *words, "--scale", "warm=0.5", "--without", "cold")
    assert code == 2 and "--curve each: --without and --scale set the factor of every task" in err


def test_a_curve_of_strange_names_is_drawn():
    names = ("$x^$ <b>&", "this task", "\x1b[31m" + "long " * 40)
    accuracy = {name: (0.25, 0.5) for name in (*names, "earlier tasks")}
    curve = Curve(names[0], (0.0, 1.0), accuracy, (names[1],), (names[2],), ("earlier tasks",))
    drawn = scaling_figure(curve.factors, dict.fromkeys([*names, "a", "b"], curve.lines()), "svg").decode()
    assert "\x1b" not in drawn and "<b>" not in drawn
    assert list(curve.lines()) == ["this task", "earlier tasks", "later tasks", "zero-shot earlier tasks"]


def test_a_curve_is_computed_on_the_device_that_was_asked_for(tiny_run, tmp_path, monkeypatch, capsys):
    words = ("eval", tiny_run.folder, "--curve", "warm", "--plot", tmp_path / "curve.svg")
    if not torch.cuda.is_available():
        code, _, err = cli(monkeypatch, capsys, *words, "--device", "cuda")
        assert code == 2 and "--device cuda: this machine has no CUDA device" in err, err
    monkeypatch.setattr(State, "precision", "tf32")
    code, _, err = cli(monkeypatch, capsys, *words, "--device", "cpu")
    assert code == 2 and f"{tiny_run.folder}: evaluation.precision: tf32 is a way of NVIDIA GPUs" in err, err


def test_every_point_is_added_up_at_home_and_answered_on_the_device(tiny_run, monkeypatch):
    """With a device that is none, so that a machine without a GPU can tell."""
    done: list[str] = []
    merge = State.merge
    monkeypatch.setattr(nn.Module, "to", lambda module, device: done.append(str(device)) or module)
    monkeypatch.setattr(State, "merge", lambda state: done.append("merged") or merge(state))
    monkeypatch.setattr(update_curve, "measure", lambda *words: done.append("measured") or [])
    monkeypatch.setattr(update_curve, "sets_of", lambda state: [])
    state = find_state(tiny_run.folder)
    done.clear()
    curves_along(state, ["warm"], (0.0, 1.0), device="elsewhere")
    assert done == ["cpu", "merged", "elsewhere", "measured"] * 2 + ["cpu"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_curve_on_a_gpu_ends_at_the_run_as_eval_measures_it_there(tiny_run, tmp_path, monkeypatch, capsys):
    on_gpu = ("--device", "cuda", "--json")
    words = ("eval", tiny_run.folder, "--curve", "warm", "--plot", tmp_path / "curve.svg", *on_gpu)
    _, drawn, _ = cli(monkeypatch, capsys, *words)
    _, plain, _ = cli(monkeypatch, capsys, "eval", tiny_run.folder, *on_gpu)
    ends = {name: values[-1] for name, values in json.loads(drawn)[0]["accuracy"].items()}
    assert ends == {one["name"]: one["accuracy"] for one in json.loads(plain)}


def test_a_task_of_captions_is_in_no_curve(tiny_scenario, tiny_strategy, tmp_path, monkeypatch, capsys):
    scenario = load_scenario(str(with_captions(tmp_path, tiny_scenario.read_text())))
    folder = run(scenario, load_strategy(str(tiny_strategy)), out=tmp_path / "runs", analysis=False).folder
    words = ("eval", folder, "--plot", tmp_path / "curve.svg", "--factors", "0,1", "--curve")
    code, out, err = cli(monkeypatch, capsys, *words, "each")
    assert code == 0 and "no curve of told: captions" in out, err
    code, out, err = cli(monkeypatch, capsys, *words, "each", "--json")
    assert code == 0 and [one["task"] for one in json.loads(out)] == ["warm", "cold"], err
    assert set(json.loads(out)[0]["accuracy"]) == {"warm", "cold", "colours"}
    code, _, err = cli(monkeypatch, capsys, *words, "told")
    assert code == 2 and "task 'told' has pictures with captions and no classes" in err
    assert "which warm, cold can give" in err and err.count("\n") == 1
    (curve,) = curves_along(find_state(folder), ["cold"], (1.0,))
    assert (curve.earlier, curve.later) == (("warm",), ()) and "earlier tasks" in curve.lines()
