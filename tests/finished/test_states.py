"""The states of a finished run: after every task, without one, with other pictures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from builders.commands import cli
from builders.images import COLOURS, paint
from builders.measured import on_own_stream
from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.finished.states import open_run
from cl_complora.run.stream import run


@pytest.mark.parametrize("after", [None, "0", "1", "2", "warm", "cold"])
def test_every_state_measures_what_the_run_recorded(tiny_run, after):
    state = open_run(tiny_run.folder, after)
    assert state.after == {None: ["warm", "cold"], "0": [], "1": ["warm"], "warm": ["warm"]}.get(
        after, ["warm", "cold"]
    )
    found = on_own_stream(state)
    assert [one.name for one in found] == ["warm", "cold", "colours"]
    assert all(one.accuracy == one.recorded for one in found)


def test_a_state_that_results_do_not_tell_yet_is_measured_alone(tiny_run, tmp_path):
    """A run that was killed between the record of a task and its results.json."""
    copy = shutil.copytree(tiny_run.folder, tmp_path / "run")
    results = json.loads((copy / "results.json").read_text())
    results["accuracy"].pop()
    for curve in results["zero_shot"].values():
        curve.pop()
    (copy / "results.json").write_text(json.dumps(results))
    found, whole = on_own_stream(open_run(copy)), on_own_stream(open_run(tiny_run.folder))
    assert [replace(one, recorded=None) for one in whole] == found != whole
    assert on_own_stream(open_run(copy, after="1")) == on_own_stream(open_run(tiny_run.folder, after="1"))


def test_a_task_left_out_is_the_other_one_alone(tiny_run):
    both, without = open_run(tiny_run.folder), open_run(tiny_run.folder, scale={"warm": 0.0})
    half, start = open_run(tiny_run.folder, scale={"warm": 0.5}), open_run(tiny_run.folder, "0")
    key = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    w = {name: s.loaded.model.state_dict()[key] for name, s in vars_of(both, without, half, start).items()}
    assert not torch.equal(w["both"], w["without"])
    assert torch.allclose(w["half"], (w["both"] + w["without"]) / 2, atol=1e-6)
    assert not torch.equal(w["without"], w["start"])


def test_of_independent_tasks_every_state_is_one_task_alone(tmp_path, tiny_scenario, tiny_strategy):
    located = load_scenario(str(tiny_scenario), ["independent=true"])
    out = run(located, load_strategy(str(tiny_strategy)), out=tmp_path)
    for number, name in enumerate(("warm", "cold"), start=1):
        state = open_run(out.folder, str(number))
        assert state.after == [name] and state.row == number
        recorded = {one.name: one.recorded for one in on_own_stream(state, True) if one.recorded is not None}
        assert set(recorded) == {name, "colours"}
        assert all(one.accuracy == recorded.get(one.name, one.accuracy) for one in on_own_stream(state, True))
    with pytest.raises(UserError, match="no task 'warm' among those merged: cold"):
        open_run(out.folder, scale={"warm": 0.0})


def test_an_independent_task_is_asked_of_its_own_model(
    tmp_path, tiny_scenario, tiny_strategy, class_folders, monkeypatch, capsys
):
    located = load_scenario(str(tiny_scenario), ["independent=true"])
    made = run(
        located, load_strategy(str(tiny_strategy)), out=tmp_path, evaluate=False, analysis=False
    ).folder
    picture = class_folders / "test" / "red" / "0.png"

    def told(*words: str) -> tuple[str, str]:
        code, out, err = cli(monkeypatch, capsys, "predict", made, picture, "--json", *words)
        assert code == 0, err
        return out, err

    assert told("--task", "warm") == told("--task", "warm", "--after", "1") == told("--after", "warm")
    assert told("--task", "warm", "--after", "0")[0] != told("--task", "warm")[0]
    which = (
        "note: the tasks are independent, with a model each: that of 'cold' answers; --after chooses another"
    )
    assert which in " ".join(told()[1].split()) and which in " ".join(told("--task", "colours")[1].split())
    assert told()[0] == told("--task", "cold")[0] and not told("--task", "cold")[1]
    code, out, err = cli(monkeypatch, capsys, "predict", made, picture, "--task", "warm", "--after", "cold")
    assert code == 2 and not out and "the model after 'cold' has learned nothing of 'warm'" in err
    # A task that is not finished has no model yet.
    next((made / "tasks").glob("*cold*")).unlink()
    with pytest.raises(UserError, match="--task cold: .* has finished warm"):
        open_run(made, task="cold")


def vars_of(both, without, half, start) -> dict:
    return {"both": both, "without": without, "half": half, "start": start}


def test_pictures_that_were_exchanged_are_noticed(tmp_path, tiny_strategy, tiny_files):
    for split in ("train", "test"):
        for name, colour in list(COLOURS.items())[:2]:
            for number in range(3):
                paint(tmp_path / "set" / split / name / f"{number}.png", colour, number)
    config, weights = tiny_files
    (tmp_path / "s.yaml").write_text(
        f"name: s\nmodel: {{name: tiny_clip, config: {config}, pretrained: {weights}}}\nshots: 2\n"
        "tasks:\n  - name: one\n    source: {kind: folder, root: set}\n"
    )
    out = run(
        load_scenario(str(tmp_path / "s.yaml")), load_strategy(str(tiny_strategy)), out=tmp_path / "runs"
    )
    assert on_own_stream(open_run(out.folder), True)[0].images == 6
    paint(tmp_path / "set" / "test" / "red" / "9.png", (1, 2, 3), 9)
    with pytest.raises(UserError, match="'one' has other pictures now"):
        on_own_stream(open_run(out.folder), True)
