"""A run's model in Python: pictures classified, weights exported."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

import cl_complora
from builders.commands import cli
from builders.interruptions import Stop, StopAfter
from cl_complora import UserError


@pytest.fixture(scope="module")
def loaded(tiny_run):
    return cl_complora.load_run(tiny_run.folder)


@pytest.fixture(scope="module")
def probed(tiny_scenario, tmp_path_factory):
    """A run whose tasks heads answer."""
    return cl_complora.run(tiny_scenario, "linear-probe", out=tmp_path_factory.mktemp("probed"))


def test_pictures_are_classified_as_the_command_does(loaded, class_folders, tmp_path, monkeypatch, capsys):
    folder = class_folders / "test" / "red"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = loaded.predict([folder, broken], top=2)
    code, out, _ = cli(monkeypatch, capsys, "predict", loaded.folder, folder, broken, "--top", "2", "--json")
    assert code == 1
    for one, told in zip(found, json.loads(out), strict=True):
        assert str(one.path) == told["image"]
        shown = [{"class": name, "probability": share} for name, share in one.classes]
        assert (shown == told["classes"]) if one.error is None else (one.error == told["error"])
    assert found[-1].path == broken and found[-1].error and not found[-1].classes


def test_classes_tasks_states_and_prompts_are_those_that_are_given(loaded, class_folders):
    picture = str(next((class_folders / "test" / "red").iterdir()))
    (own,) = loaded.predict(picture, ["red", "blue"], prompts=["a photo of a {}"])
    assert {name for name, _ in own.classes} == {"red", "blue"}
    assert sum(share for _, share in own.classes) == pytest.approx(1)
    (of_task,) = loaded.predict(Path(picture), task=loaded.tasks[0])
    (untouched,) = loaded.predict(picture, task=loaded.tasks[0], after=0)
    (first,) = loaded.predict(picture, task=loaded.tasks[0], after=loaded.tasks[0])
    assert loaded.predict(picture, task=loaded.tasks[0], after=np.int64(1)) == [first]
    assert len({of_task.classes, untouched.classes, first.classes}) == 3


def test_weights_are_written_as_the_command_writes_them(loaded, tmp_path, monkeypatch, capsys):
    files = loaded.export(tmp_path / "mine.safetensors", after=1)
    assert {path.name for path in files} >= {"mine.safetensors", "mine.json", "mine.md"}
    other = tmp_path / "other"
    other.mkdir()
    there = other / "mine.safetensors"
    assert cli(monkeypatch, capsys, "export", loaded.folder, "-o", there, "--after", "1")[0] == 0
    mine, theirs = load_file(files[0]), load_file(there)
    assert mine.keys() == theirs.keys() and all((mine[key] == theirs[key]).all() for key in mine)
    half = loaded.export(str(tmp_path / "half.safetensors"), half=True)
    assert half[0].stat().st_size < 0.6 * files[0].stat().st_size


def test_what_the_command_notes_is_a_warning_in_the_words_of_the_call(loaded, tmp_path, probed):
    deep = tmp_path / "deep.png"
    Image.fromarray(np.linspace(0, 4000, 64 * 64).reshape(64, 64).astype(np.uint16)).save(deep)
    with pytest.warns(
        UserWarning, match=r"stored values from 0 to 4095 .*\(value_range for another\)"
    ) as heard:
        (found,) = loaded.predict(deep)
    assert len(heard) == 1 and heard[0].filename == __file__ and found.error is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (clipped,) = loaded.predict(deep, value_range=(0, 100))
        assert clipped.classes != found.classes
        assert loaded.predict(deep, value_range=12) == [found]
    with pytest.warns(UserWarning, match="^classes are answered by their texts, not by the run's head"):
        probed.predict(deep, ["red", "blue"], value_range=12)
    with pytest.warns(UserWarning, match="cannot hold the heads .* classifier.safetensors, and mine.md says"):
        probed.export(tmp_path / "mine.safetensors")


def test_a_run_that_is_not_finished_is_told(tiny_scenario, tiny_strategy, tmp_path, monkeypatch, capsys):
    with pytest.raises(Stop):
        cl_complora.run(tiny_scenario, tiny_strategy, out=tmp_path / "runs", progress=StopAfter(1))
    (results,) = (tmp_path / "runs").rglob("results.json")
    begun = cl_complora.load_run(results.parent)
    (tmp_path / "one.png").write_bytes(b"no picture")
    with pytest.warns(
        UserWarning, match="is not finished: 1 of 2 tasks are done, and this is the model that"
    ):
        begun.predict(tmp_path / "one.png")
    with pytest.warns(UserWarning, match="is not finished"):
        begun.export(tmp_path / "begun.safetensors")
    out = tmp_path / "command.safetensors"
    code, _, err = cli(monkeypatch, capsys, "export", begun.folder, "-o", out)
    assert code == 0 and "note: " in err and "is not finished: 1 of 2 tasks are done" in err
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begun.predict(tmp_path / "one.png", after=1)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"pictures": []}, "pictures: must be a path, or a list of paths, got []"),
        ({"pictures": 3}, "pictures: must be a path, or a list of paths, got 3"),
        ({"pictures": "nowhere.png"}, "nowhere.png: there is no such file or folder"),
        ({"classes": "red, blue"}, "classes: must be a list of names, got 'red, blue'"),
        ({"classes": ["red", "red"]}, "classes: 'red' stands twice"),
        ({"classes": ["red"], "task": "warm"}, "classes and task: give one of the two"),
        ({"task": "hot"}, "task hot: this run has"),
        ({"task": "warn"}, "task warn: this run has warm, cold, colours; did you mean 'warm'?"),
        ({"task": ["warm"]}, "task: must be a text, got ['warm']"),
        ({"value_range": "much"}, "value_range: must be a number of bits, or two values such as (0, 4095)"),
        ({"value_range": 40}, "value_range 40: must be LOW,HIGH with LOW < HIGH, or a number of bits"),
        ({"pretrained": "nowhere.pt"}, "model.pretrained: there is no weight file"),
        ({"top": 0}, "top: must be a whole number, at least 1, got 0"),
        ({"after": -1}, "after: must be a whole number, at least 0, got -1"),
        ({"after": "hot"}, "after hot"),
        ({"prompts": ["no place"]}, "prompts 'no place': must hold {} once"),
    ],
)
def test_what_cannot_work_is_told_in_the_words_of_the_call(loaded, class_folders, given, told):
    with pytest.raises(UserError) as error:
        loaded.predict(**({"pictures": class_folders / "test" / "red"} | given))
    assert error.value.messages[0].startswith(told) and "--" not in error.value.messages[0]


def test_no_other_file_is_written_over(loaded, tmp_path):
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(b"somebody's")
    with pytest.raises(UserError, match="mine.safetensors"):
        loaded.export(mine)
    assert mine.read_bytes() == b"somebody's"
    with pytest.raises(UserError, match=r"^output .*mine\.pt: must end in \.safetensors"):
        loaded.export(tmp_path / "mine.pt")
    with pytest.raises(UserError, match="half: must be True or False"):
        loaded.export(tmp_path / "other.safetensors", half="no")
