"""eval --data says what it measures: classes, prompts, what answers, and what was trained on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from builders.commands import cli
from builders.images import COLOURS, paint
from cl_complora.finished.evaluation import data_asked, find_data
from cl_complora.finished.states import open_run
from cl_complora.finished.told_data import describe


@pytest.fixture
def told(monkeypatch, capsys):
    def told(*words):
        code, out, err = cli(monkeypatch, capsys, "eval", *words)
        assert code == 0, err
        return out, err

    return told


@pytest.fixture
def copied(class_folders, tmp_path):
    """The pictures of the run, training and test ones of a class together, and one that it never saw."""
    for split in ("train", "test"):
        for path in (class_folders / split).rglob("*.png"):
            target = tmp_path / "both" / path.parent.name / f"{split}-{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    paint(tmp_path / "new" / "red" / "0.png", COLOURS["red"], 7)
    return tmp_path


def test_classes_prompts_and_trained_pictures_are_told(tiny_run, joint_run, told, copied, class_folders):
    out, err = told(tiny_run.folder, "--data", copied / "both", "--json")
    line = "both: 4 classes (blue, green, red, yellow), answered by texts with 'a photo of a {}.'"
    assert f"{line}; 12 of 48 pictures are among those trained on\n" in err
    (row,) = json.loads(out)
    assert row["classes"] == ["blue", "green", "red", "yellow"]
    words = ("--prompt", "a {}", "--prompt", "so {}", "--prompt", "the {}")
    _, err = told(tiny_run.folder, "--after", "warm", "--data", copied / "both", *words)
    assert "with 'a {}' and 2 more prompts; 6 of 48 pictures" in err
    _, err = told(tiny_run.folder, "--data", copied / "new")
    assert "new: 1 class (red), answered" in err and "; none of 1 picture is among those trained on" in err
    _, err = told(tiny_run.folder, "--without", "warm", "--data", copied / "both")
    assert "; 6 of 48 pictures" in err
    _, err = told(joint_run, "--after", "warm", "--data", copied / "both")  # which is after both
    assert "; 12 of 48 pictures" in err
    _, err = told("embedded", "--data", class_folders)
    assert "answered by texts with 'a photo of a {}.'\n" in err and "trained" not in err


def test_every_set_of_a_scenario_is_told(tiny_run, told, tiny_scenario):
    out, err = told(tiny_run.folder, "--data", tiny_scenario, "--json")
    starts = ["tiny/warm: 2 classes (red, yellow)", "tiny/cold: 2 classes", "tiny/colours: 4 classes"]
    lines = [line for line in err.splitlines() if line.startswith("tiny/")]
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 3
    assert all("none of" in line for line in lines)
    assert [len(row["classes"]) for row in json.loads(out)] == [2, 2, 4]


def test_pictures_of_a_run_that_are_gone_are_not_counted(tiny_run, class_folders):
    state = open_run(tiny_run.folder)
    data = find_data(str(class_folders))
    splits = {**state.config["splits"], "warm": "other"}
    state = replace(state, config={**state.config, "splits": splits})
    (line,) = describe([data], data_asked(state.loaded, data), state)
    assert "trained on is not known" in line


def test_a_head_that_does_not_answer_is_told(tiny_run, class_folders):
    state = open_run(tiny_run.folder)
    strategy = {**state.config["strategy"], "head": {"kind": "linear-probe"}}
    state = replace(state, config={**state.config, "strategy": strategy})
    data = find_data(str(class_folders))
    (line,) = describe([data], data_asked(state.loaded, data), state)
    assert ", not by the run's head; none of 24 pictures" in line
    located = state.scenario
    task = located.value.tasks[0].model_copy(update={"classes": None})
    whole = located.value.model_copy(update={"tasks": [task, *located.value.tasks[1:]]})
    state = replace(state, scenario=replace(located, value=whole), after=["warm"])
    names = {"splits": {"warm": planned(state)}}
    state = replace(state, config={**state.config, **names})
    _, note = describe([data], data_asked(state.loaded, data), state)
    assert "these are the classes of task 'warm', whose head answers in" in note
    state = replace(state, after=[])
    (line,) = describe([data], data_asked(state.loaded, data), state)
    assert "head" not in line


def planned(state) -> str:
    from cl_complora.data.planning import only_task, plan

    return plan(only_task(state.scenario, "warm"), state.results["seed"]).tasks[0].sha256()


def test_a_folder_of_tasks_is_told_as_one(tiny_run, told, tmp_path):
    for task in ("flowers", "waste"):
        for name in ("one", "two"):
            paint(tmp_path / "mine" / task / name / "0.png", (1, 2, 3), 0)
    _, err = told(tiny_run.folder, "--data", tmp_path / "mine")
    assert "mine: 2 classes (flowers, waste)" in err
    where = tmp_path / "mine" / "flowers"
    assert f"in folders of these (one, two); if those are the classes, give {where}\n" in err
    _, err = told(tiny_run.folder, "--data", where)
    assert "in folders of these" not in err


def test_empty_class_folders_are_refused_and_untested_ones_told(tiny_run, told, monkeypatch, capsys, copied):
    (copied / "both" / "pink").mkdir()
    code, _, err = cli(monkeypatch, capsys, "eval", tiny_run.folder, "--data", copied / "both")
    assert code == 2 and f"error: --data {copied / 'both'}: class pink has no pictures; delete its fol" in err
    paint(copied / "parts" / "train" / "red" / "0.png", COLOURS["red"], 1)
    paint(copied / "parts" / "test" / "blue" / "0.png", COLOURS["blue"], 2)
    paint(copied / "parts" / "train" / "blue" / "0.png", COLOURS["blue"], 3)
    _, err = told(tiny_run.folder, "--data", copied / "parts")
    assert "note: 'parts': no test picture is of 'red'" in err


def test_sets_of_one_name_are_told_apart(tiny_run, told, copied):
    shutil.copytree(copied / "new", copied / "again" / "new")
    paint(copied / "again" / "new" / "blue" / "0.png", COLOURS["blue"], 2)
    _, err = told(tiny_run.folder, "--data", copied / "new", "--data", copied / "again" / "new")
    lines = [line for line in err.splitlines() if line.startswith("new: ")]
    assert [line.partition(",")[0] for line in lines] == ["new: 1 class (red)", "new: 2 classes (blue"]


@pytest.fixture
def tabled(copied):
    """Six pictures in one folder, and a table of their two classes beside it."""
    where = copied / "tabled"
    for number in range(6):
        paint(where / "img" / f"{number}.png", COLOURS["red" if number % 2 else "blue"], number)
    rows = [f"img/{number}.png,{'red' if number % 2 else 'blue'}" for number in range(6)]
    (where / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return where


def test_a_table_stands_for_folders_as_in_a_first_scenario(told, tabled):
    out, err = told("embedded", "--data", tabled, "--json")
    assert "tabled: 2 classes (blue, red)" in err and json.loads(out)[0]["images"] == 6
    assert f"note: tabled: is read by its table {tabled / 'labels.csv'}: folders do not tell" in err
    assert "no column says which rows are for the test: all are" in err
    out, err = told("embedded", "--data", tabled / "labels.csv", "--json")
    assert "labels: 2 classes (blue, red)" in err and json.loads(out)[0]["images"] == 6


def test_one_class_and_a_table_that_is_not_read_are_told(told, tabled):
    with (tabled / "labels.csv").open("a") as file:
        file.write("img/missing.png,red\n")
    _, err = told("embedded", "--data", tabled)
    assert "note: 'tabled': has one class, 'img': every answer is right, and 100 % mean nothing" in err
    assert "labels.csv lies beside the class folders and is not read" in err


def test_a_file_and_loose_pictures_are_told_with_what_can_be_given(monkeypatch, capsys, tabled):
    for given, words in (
        (tabled / "img" / "0.png", "0.png: is a file; give a folder of class folders, a table (.csv, .tsv"),
        (tabled / "img", "img: holds no class folders; it holds pictures: give each class a folder"),
    ):
        code, _, err = cli(monkeypatch, capsys, "eval", "embedded", "--data", given)
        assert code == 2 and words in err and err.count(str(given)) == 1


def test_data_of_no_name_is_not_the_folder_that_one_is_in(monkeypatch, capsys, tabled):
    monkeypatch.chdir(tabled)
    code, _, err = cli(monkeypatch, capsys, "eval", "embedded", "--data", "")
    assert code == 2 and "word 4 of the command, after --data: must not be empty" in err


def test_what_was_passed_over_is_told_of_folders_and_of_scenarios(told, copied, tiny_scenario):
    for split in ("train", "test"):
        paint(copied / "split" / split / "red" / "0.png", COLOURS["red"], 1)
        paint(copied / "split" / split / "blue" / "0.png", COLOURS["blue"], 2)
    paint(copied / "split" / "test" / "red" / "@eaDir" / "1.png", COLOURS["red"], 3)
    (copied / "split" / "test" / "notes.txt").touch()
    where = copied / "split"
    passed = f"note: {where}: of servers and systems, and passed over: @eaDir (1)\n"
    assert told("embedded", "--data", where)[1].count(passed) == 1
    head, _, _ = tiny_scenario.read_text().partition("tasks:")
    source = f"tasks:\n- {{name: t, source: {{kind: folder, root: {where}}}}}\n"
    (copied / "s.yaml").write_text(head.replace("shots: 3", "shots: 1") + source)
    assert told("embedded", "--data", copied / "s.yaml")[1].count(passed) == 1
