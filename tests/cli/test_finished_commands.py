"""export, eval, predict and init: whatever is wrong is told in one line; a first scenario."""

from __future__ import annotations

import shutil

import pytest

from builders.commands import cli
from builders.images import paint
from cl_complora.config import load_scenario
from cl_complora.data.discovery.discover import describe


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["export", "{run}", "-o", "x.pt"], "must end in .safetensors"),
        (["export", "{run}", "-o", "ViT-B-16.safetensors"], "choose another"),
        (["export", "{run}", "-o", "{png}/deep/m.safetensors"], "0.png is a file and no folder"),
        (["export", "{run}", "--after", "hot"], "has finished warm, cold"),
        (["export", "{run}", "--after", "²"], "--after ²: {run} has finished warm, cold"),
        (["export", "nowhere"], "there is no such folder"),
        (["eval", "{run}/.."], "is no run"),
        (["eval", "{run}", "--without", "hot"], "no task 'hot'"),
        (["eval", "{run}", "--scale", "warm"], "must have the form TASK=FACTOR"),
        (["eval", "{run}", "--without", "warm", "--scale", "warm=0.5"], "once in all; 'warm' is named twice"),
        (["eval", "{run}", "--scale", "warm=0", "--scale", "warm=0.5"], "once in all; 'warm' is named twice"),
        (["eval", "{run}", "--curve", "hot"], "no task 'hot' among those merged: warm, cold"),
        (
            ["eval", "{run}", "--curve", "warm", "--without", "warm"],
            "'warm' is to be scaled by 0 and to have a curve",
        ),
        (["eval", "{run}", "--curve", "each", "--after", "0"], "--curve: this state holds no task's update"),
        (
            ["eval", "{run}", "--curve", "warm", "--factors", "0,much"],
            "--factors 0,much: must have the form 0,0.5,1",
        ),
        (["eval", "{run}", "--curve", "warm", "--factors", "nan"], "--factors nan: must"),
        (["eval", "{run}", "--curve", "warm", "--plot", "curve.txt"], "must end in .svg, .png, .pdf"),
        (["eval", "{run}", "--curve", "warm", "--plot", "gone/curve.svg"], "in a folder that exists"),
        (["eval", "{run}", "--curve", "warm", "--data", "digits"], "--data: is not for --curve"),
        (["eval", "{run}", "--factors", "0,1"], "--factors: is for --curve"),
        (["eval", "embedded", "--curve", "warm"], "--curve: is for a run"),
        (
            ["eval", "{run}", "--data", "nowhere"],
            "there is no such folder, and nothing of that name; scenarios: ",
        ),
        (["eval", "{run}", "--data", "eurosat"], "expected below"),
        (["eval", "{run}", "--data", "digit"], "did you mean digits?"),
        (["eval", "{run}", "--data", "no.yaml"], "there is no such file"),
        (["eval", "{run}", "--data", "digits", "--prompt", "photo"], "must hold {{}} once"),
        (["eval", "{run}", "--prompt", "a {{}}"], "is for --data"),
        (["eval", "{run}", "--pretrained", "openai"], "has no weights 'openai' (neither a file"),
        (
            ["eval", "nowhere", "--data", "digits"],
            "neither a run's folder nor a model; a model is embedded, ",
        ),
        (["eval", "ViT-B-33", "--data", "digits"], "did you mean ViT-B-32?"),
        (["eval", "nowhere.safetensors", "--data", "digits"], "there is no such file"),
        (
            ["eval", "{weights}", "--data", "digits"],
            "open_clip_config.json, which 'cl-complora export' writes",
        ),
        (["eval", "{weights}", "--data", "digits", "--pretrained", "openai"], "brings its own"),
        (["eval", "embedded"], "no stream of its own; give --data"),
        (["eval", "embedded", "--data", "digits", "--after", "1"], "--after: is for a run"),
        (["eval", "embedded", "--data", "digits", "--pretrained", "openai"], "brings its own weights"),
        (["export", "{run}", "--peft", "--after", "0"], "--peft: this state has no update"),
        (["predict", "{run}", "nowhere.png"], "there is no such file"),
        (["predict", "{run}", "{run}"], "holds no pictures"),
        (["predict", "{run}", "{png}", "--task", "hot"], "this run has warm, cold, colours"),
        (["predict", "{run}", "{png}", "--task", "warm", "--classes", "a"], "one of the two"),
        (["predict", "{run}", "{png}", "--classes", "a,a"], "stands twice"),
        (["predict", "{run}", "{png}", "--classes", "a", "--prompt", "photo"], "must hold {{}} once"),
        (["init", "nowhere"], "there is no such folder"),
        (["init", "{run}", "-o", "x.txt"], "must end in .yaml"),
        (["init", "{run}"], "holds no class folders"),
    ],
)
def test_bad_input_is_told_in_one_line(
    words, told, tiny_run, class_folders, tiny_files, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CL_COMPLORA_DATA", str(tmp_path))
    places = {
        "run": tiny_run.folder,
        "png": class_folders / "test" / "red" / "0.png",
        "weights": tiny_files[1],
    }
    code, out, err = cli(monkeypatch, capsys, *(word.format(**places) for word in words))
    assert code == 2 and told.format(**places) in err and err.count("\n") == 1, err
    assert not out and not list(tmp_path.iterdir())


def test_init_writes_a_scenario_that_runs(tmp_path, monkeypatch, capsys):
    """Folders with spaces, unicode and upper-case suffixes, divided or not, one of them a folder of
    folders."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        for name in ("Große Katze", "dog"):
            paint(tmp_path / "my pets" / name / f"{number}.PNG", (50 * number, 90, 20), number)
        for name in ("1", "2"):
            for split in ("train", "test"):
                paint(
                    tmp_path / "sets" / "yes" / split / name / f"{number}.jpeg",
                    (200, 40 * number, 20),
                    number,
                )
            paint(tmp_path / "sets" / "other" / name / f"{number}.png", (20, 20, 50 * number), number)
    code, out, _ = cli(monkeypatch, capsys, "init", "my pets", "sets", "-o", "mine.yaml")
    assert code == 0 and "my pets: 2 classes, 4 training and 4 test images" in out
    scenario = load_scenario("mine.yaml").value
    assert [task.name for task in scenario.tasks] == ["my pets", "other", "yes"] and scenario.shots == 2
    code, out, _ = cli(monkeypatch, capsys, "check", "mine.yaml")
    assert code == 0 and "is fine (3 tasks, 12 training images)" in out
    quick = ["--set", "training.steps=2", "--set", "zero_shot.0.images=20", "--no-analysis"]
    code, out, err = cli(monkeypatch, capsys, "run", "mine.yaml", "-s", "lora", *quick)
    assert code == 0 and "Retention general" in out, err
    code, _, err = cli(monkeypatch, capsys, "init", "my pets", "-o", "mine.yaml")
    assert code == 2 and "--force overwrites it" in err
    shutil.copytree(tmp_path / "my pets", tmp_path / "more" / "my pets")
    text, _ = describe([tmp_path / "my pets", tmp_path / "more"], tmp_path / "a.yaml", shots=1)
    assert 'name: "my pets-2"' in text and "shots: 1" in text


def test_names_are_shown_as_they_are(tiny_run, class_folders, tmp_path, monkeypatch, capsys):
    """Square brackets are marks to what draws the table."""
    pets, odd = tmp_path / "pets [old]", tmp_path / "[" / "b]"
    shutil.copytree(class_folders, pets)
    shutil.copytree(tiny_run.folder, odd)
    code, out, err = cli(monkeypatch, capsys, "eval", odd, "--data", pets)
    assert code == 0 and "pets [old]" in out and "[/b] after cold" in out, err
