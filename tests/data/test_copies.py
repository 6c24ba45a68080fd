"""Pictures that two tasks both use, byte by byte, are noted: by check, data check and run."""

from __future__ import annotations

import shutil
import sys

import pytest

from builders.commands import cli
from builders.images import paint
from cl_complora.config import load_scenario
from cl_complora.data.checks import duplicates
from cl_complora.data.checks.duplicates import trained_on
from cl_complora.data.checks.notes import notes
from cl_complora.data.checks.plausibility import on_paper
from cl_complora.data.planning import plan

SPLITS = {"train": 3, "test": 5}


@pytest.fixture
def scenario(tmp_path, monkeypatch):
    """Two tasks of their own pictures."""
    monkeypatch.chdir(tmp_path)
    for place, task in enumerate(("a", "b")):
        for split, each in SPLITS.items():
            for label, name in enumerate(("cat", "dog")):
                for number in range(each):
                    seed = 1000 * place + 100 * label + 10 * number + len(split)
                    paint(tmp_path / task / split / name / f"{number}.png", (80 * label, 90, 20), seed)
    tasks = "".join(f"  - {{name: {one}, source: {{kind: folder, root: {one}}}}}\n" for one in "ab")
    (tmp_path / "s.yaml").write_text(f"name: s\nshots: 3\ntasks:\n{tasks}")
    return tmp_path


def told() -> list[str]:
    located = load_scenario("s.yaml")
    return notes(located, plan(located, 0))


def test_tasks_of_their_own_pictures_are_not_noted(scenario):
    assert told() == []


@pytest.mark.parametrize(("split", "part", "all_of"), [("train", "training", 6), ("test", "test", 10)])
def test_copies_in_another_task_are_noted(scenario, monkeypatch, capsys, split, part, all_of):
    shutil.copy(scenario / "a" / split / "dog" / "2.png", scenario / "b" / split / "cat" / "0.png")
    line = (
        f"'b': 1 of {all_of} {part} pictures are copies of {part} pictures of 'a': {split}/cat/0.png is"
        f" {split}/dog/2.png there"
    )
    assert told() == [line]
    shutil.rmtree(scenario / "b" / split)
    shutil.copytree(scenario / "a" / split, scenario / "b" / split)
    (whole,) = told()
    assert whole.startswith(f"'b': all {part} pictures are copies of {part} pictures of 'a': {split}/")
    assert f"note: {whole}" in cli(monkeypatch, capsys, "check", "s.yaml")[1]
    # Which names more of them.
    first = whole.removesuffix(" there")
    assert f"note: {first}, " in cli(monkeypatch, capsys, "data", "check", "s.yaml")[1]


def test_of_large_tasks_some_pictures_are_looked_for(scenario, monkeypatch):
    monkeypatch.setattr(duplicates, "LOOKED", 2)
    shutil.rmtree(scenario / "b" / "test")
    shutil.copytree(scenario / "a" / "test", scenario / "b" / "test")
    assert [line.partition(":")[2].partition("are")[0] for line in told()] == [
        " all test pictures looked at "
    ]


def test_the_same_files_under_one_name_are_told_once_and_elsewhere(scenario):
    text = (scenario / "s.yaml").read_text()
    (scenario / "s.yaml").write_text(text.replace("root: b", "root: a"))
    assert told() == ["'b': 10 of 10 test pictures are those of 'a' too"]


def test_check_opens_no_test_picture_that_settings_are_not_chosen_by_and_not_very_many(scenario, monkeypatch):
    shutil.rmtree(scenario / "b" / "test")
    shutil.copytree(scenario / "a" / "test", scenario / "b" / "test")
    located = load_scenario("s.yaml")
    assert len(on_paper(located, plan(located, 0))) == 1
    monkeypatch.setattr("cl_complora.data.checks.plausibility.HELD", 10)
    assert on_paper(located, plan(located, 0)) == []
    monkeypatch.undo()
    settings = ["shots=2", "validation_shots=1", "measure=validation"]
    located = load_scenario(str(scenario / "s.yaml"), settings)
    assert on_paper(located, plan(located, 0)) == []


def test_pictures_that_were_trained_on_are_counted_by_content(scenario):
    located = load_scenario("s.yaml")
    a, b = plan(located, 0).tasks
    assert trained_on(b, [a]) == 0
    for number in (0, 1):
        shutil.copy(scenario / "a" / "train" / "cat" / "0.png", scenario / "b/test/dog" / f"{number}.png")
    a, b = plan(load_scenario("s.yaml"), 0).tasks
    assert (trained_on(b, [a]), trained_on(b, []), trained_on(a, [a, b])) == (2, 0, 0)


def test_copies_of_test_pictures_in_the_reference_set_are_noted(scenario):
    shutil.copytree(scenario / "a" / "test", scenario / "r")
    text = (scenario / "s.yaml").read_text()
    (scenario / "s.yaml").write_text(
        text + "reference: {source: {kind: folder, root: r, test_fraction: 0.2}}\n"
    )
    (line,) = told()
    assert line.startswith("'a': 8 of 10 test pictures are used in the reference set too: test/")
    located = load_scenario("s.yaml")
    assert on_paper(located, plan(located, 0)) == [line]


def test_copies_of_training_pictures_among_those_for_validation_are_noted(scenario):
    for name in ("cat", "dog"):
        for number in range(3):
            path = scenario / "a" / "train" / name / f"{number}.png"
            shutil.copy(path, path.with_name(f"{number} copy.png"))
    settings = ["shots=3", "validation_shots=3", "measure=validation"]
    text = (scenario / "s.yaml").read_text()
    (scenario / "s.yaml").write_text(text[: text.index("  - {name: b")])
    located = load_scenario("s.yaml", settings)
    (line,) = on_paper(located, plan(located, 0))
    assert line.startswith("'a': ") and " validation pictures are used in its own training too: " in line
    located = load_scenario("s.yaml", [*settings[:2], "measure=test"])
    assert line in notes(located, plan(located, 0))


def test_a_check_of_all_data_names_the_copies_and_a_run_one_of_them(scenario, monkeypatch):
    for number in range(3):
        shutil.copy(
            scenario / "a" / "train" / "cat" / f"{number}.png", scenario / f"b/train/dog/{number}.png"
        )
        shutil.copy(
            scenario / "a" / "train" / "cat" / f"{number}.png", scenario / f"a/train/dog/{number}.png"
        )
    located = load_scenario("s.yaml")
    plans = plan(located, 0)
    classes, tasks = notes(located, plans)
    assert classes.count("are the same picture") == 1 and tasks.count(" is ") == 1
    classes, tasks = notes(located, plans, every=True)
    assert [classes.count(f"cat/{n}.png and train/dog/{n}.png are the same picture") for n in range(3)] == [
        1
    ] * 3
    assert "3 of 6 training pictures are copies" in tasks and tasks.count(" is ") == 3
    monkeypatch.setattr(sys.modules[notes.__module__], "NAMED", 2)
    classes, tasks = notes(located, plans, every=True)
    assert classes.endswith(", and 1 more") and tasks.count(" is ") == 2 and ", and 1 more there" in tasks
