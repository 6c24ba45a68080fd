"""Pictures whose task nobody says: which head is asked, by predict, by eval and by an exported page."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from builders.commands import cli
from builders.heads import PAIRED, quick_head
from cl_complora.clip.evaluate import seen_features
from cl_complora.clip.heads.several import SeveralHeads
from cl_complora.config import load_scenario, load_strategy
from cl_complora.engine.fitting.fitting import class_means
from cl_complora.errors import UserError
from cl_complora.finished.evaluation import asked_among_all
from cl_complora.finished.given_pictures import read_differently
from cl_complora.finished.predict import answering, label_space, predict
from cl_complora.finished.states import open_run
from cl_complora.run.stream import run
from cl_complora.store.folder import RunDir
from cl_complora.store.head_files import load_head, save_head


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_scenario):
    """The folder of a run whose heads read both towers, and of one whose towers stay."""
    folder = tmp_path_factory.mktemp("unknown")
    (folder / "paired.yaml").write_text(PAIRED)
    chosen = load_strategy("nearest-mean", quick_head(load_strategy("nearest-mean").value.head))
    return {
        name: run(load_scenario(str(tiny_scenario)), strategy, out=folder, analysis=False).folder
        for name, strategy in (("paired", load_strategy(str(folder / "paired.yaml"))), ("means", chosen))
    }


def files_of(folder, task: str, root) -> list:
    return [root / row["key"] for row in RunDir(folder).read_split(task) if row["split"] == "test"]


@pytest.mark.parametrize("name", ["paired", "means"])
def test_heads_keep_the_class_means_of_their_shots(runs, name, class_folders):
    folder = runs[name]
    for task in ("warm", "cold"):
        state = open_run(folder, task)
        head = state.heads()[task]
        rows = [row for row in RunDir(folder).read_split(task) if row["split"] == "train"]
        pixels = torch.stack([state.loaded.pixels.read(class_folders / row["key"]) for row in rows])
        labels = torch.tensor([head.classes.index(row["class"]) for row in rows])
        features = seen_features(state.classifier(), pixels)
        assert features.shape[1] == head.means.shape[1]
        assert torch.allclose(head.means, class_means(features, labels, len(head.classes)), atol=1e-5)


@pytest.mark.parametrize("protocol", ["class-incremental", "domain-incremental"])
def test_one_head_for_all_tasks_has_no_use_for_them(protocol, tiny_scenario, tmp_path):
    later = ["tasks.1.classes=[red, yellow]"] if protocol == "domain-incremental" else []
    scenario = load_scenario(str(tiny_scenario), [f"protocol={protocol}", *later])
    made = run(scenario, load_strategy("nearest-mean"), out=tmp_path, analysis=False)
    assert open_run(made.folder).heads()["warm"].means is None


@pytest.mark.parametrize("name", ["paired", "means"])
def test_eval_asks_as_predict_does(runs, name, class_folders, monkeypatch, capsys):
    folder = runs[name]
    code, out, _ = cli(monkeypatch, capsys, "eval", folder, "--all-classes", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0 and list(rows) == ["warm", "cold"]  # zero-shot sets are of no task
    state = open_run(folder)
    space, head = label_space(state), answering(state)
    for task, row in rows.items():
        files = files_of(folder, task, class_folders)
        found = [one.classes[0][0] for one in predict(state, files, space, 1, head=head)]
        right = sum(answer == path.parent.name for answer, path in zip(found, files, strict=True))
        assert row["accuracy"] == pytest.approx(right / len(files)) and row["images"] == len(files)
    code, out, _ = cli(monkeypatch, capsys, "eval", folder, "--all-classes", "--after", "warm", "--json")
    assert [row["name"] for row in json.loads(out)] == ["warm"]
    # A table says of what, and has no figures of the run beside its own.
    code, out, _ = cli(monkeypatch, capsys, "eval", folder, "--all-classes")
    assert code == 0 and "among all classes learned so far" in " ".join(out.split()) and "recorded" not in out


def test_it_is_for_the_tasks_of_a_run(runs, class_folders, monkeypatch, capsys):
    for words, told in (
        ((runs["means"], "--data", class_folders), "is for the run's own stream, and not for --data"),
        ((runs["means"], "--curve", "warm"), "is not for --curve"),
        (("embedded", "--data", class_folders), "is for a run, and embedded is no run's folder"),
    ):
        code, out, err = cli(monkeypatch, capsys, "eval", *words, "--all-classes")
        assert code == 2 and not out and f"--all-classes: {told}" in err


def test_independent_tasks_have_no_classes_together(tiny_scenario, tmp_path, monkeypatch, capsys):
    scenario = load_scenario(str(tiny_scenario), ["independent=true"])
    made = run(scenario, load_strategy("nearest-mean"), out=tmp_path, analysis=False)
    code, out, err = cli(monkeypatch, capsys, "eval", made.folder, "--all-classes")
    assert code == 2 and not out
    assert f"--all-classes: the tasks of {made.folder} are independent, and the model of one has not" in err


def test_where_no_task_has_classes_that_is_said(runs, monkeypatch):
    state = open_run(runs["means"])
    monkeypatch.setattr(type(state), "captioned", ["warm", "cold"])
    with pytest.raises(UserError, match="--all-classes: no task of .* has classes to tell apart"):
        asked_among_all(state)


def test_pictures_that_are_read_in_several_ways_are_told(runs):
    state = open_run(runs["means"])
    assert not asked_among_all(state)[1]
    tasks = state.scenario.value.tasks
    black = tasks[0].source.model_copy(update={"background": "black"})
    other = [tasks[0].model_copy(update={"source": black}), *tasks[1:]]
    value = state.scenario.value.model_copy(update={"tasks": other})
    for read in (
        replace(state, scenario=replace(state.scenario, value=value)),
        replace(state, config={**state.config, "ranges": {"warm": [0, 4095]}}),
    ):
        assert read_differently(read, ["warm", "cold"]) and not read_differently(read, ["warm"])
    assert not read_differently(state, ["warm", "cold"])


def test_shards_add_up_to_the_whole(runs, tmp_path, monkeypatch, capsys):
    words = ("eval", runs["paired"], "--all-classes", "--json")
    whole = json.loads(cli(monkeypatch, capsys, *words)[1])
    code, out, err = cli(monkeypatch, capsys, *words, "--shards", 2, "--shard-folder", tmp_path / "parts")
    assert code == 0, err
    assert json.loads(out) == whole


def test_an_older_head_leaves_the_task_to_the_texts(runs, class_folders, monkeypatch, capsys):
    state = open_run(runs["means"])
    path = RunDir(runs["means"]).head(0, "warm")
    before = path.read_bytes()
    try:
        path.write_bytes(save_head(replace(load_head(path), means=None)))
        head = answering(open_run(runs["means"]))
        assert isinstance(head, SeveralHeads) and not head.has_means
        for words in (
            ("predict", runs["means"], class_folders / "test" / "red" / "0.png"),
            ("eval", runs["means"], "--all-classes"),
        ):
            assert "note: texts tell which task a picture is of" in cli(monkeypatch, capsys, *words)[2]
        files = files_of(runs["means"], "warm", class_folders)
        space = label_space(state)
        found = list(predict(state, files, space, head=head, top=4))
        texts = list(predict(state, files, space, top=4))
        for ours, theirs in zip(found, texts, strict=True):
            of_warm = [sum(v for k, v in one.classes if k in ("red", "yellow")) for one in (ours, theirs)]
            assert of_warm[0] == pytest.approx(of_warm[1], abs=1e-4)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("name", ["paired", "means"])
def test_the_page_of_an_export_names_the_task_that_predict_takes(
    runs, name, tmp_path, class_folders, monkeypatch, capsys
):
    out = tmp_path / f"unknown-{name}.safetensors"
    assert cli(monkeypatch, capsys, "export", runs[name], "-o", out)[0] == 0
    page = out.with_suffix(".md").read_text()
    assert "Which task a picture belongs to, where nobody says" in page
    parts = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    state = open_run(runs[name])
    space, head = label_space(state), answering(state)
    monkeypatch.chdir(tmp_path)
    for task in ("warm", "cold"):
        picture = files_of(runs[name], task, class_folders)[0]
        names: dict = {}
        for part in parts[:3]:
            exec(part.replace("picture.jpg", str(picture)), names)
        told = capsys.readouterr().out.splitlines()[-1]
        shares = dict(next(iter(predict(state, [picture], space, head=head))).classes)
        warm = shares["red"] + shares["yellow"]
        assert told == ("warm" if warm > 0.5 else "cold")
