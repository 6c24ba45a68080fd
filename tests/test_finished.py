"""A finished run put to use: states, an open_clip checkpoint, predictions, new measurements; a first scenario."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from conftest import COLOURS, paint
from PIL import Image

from cl_complora.cli import main
from cl_complora.clip.evaluate import accuracy
from cl_complora.config import load_scenario, load_strategy
from cl_complora.data.discover import describe
from cl_complora.data.planning import plan
from cl_complora.data.stream import load
from cl_complora.errors import UserError
from cl_complora.finished.export import export
from cl_complora.finished.measure import measure_folder, measure_stream
from cl_complora.finished.predict import label_space, pictures, predict
from cl_complora.finished.states import open_run
from cl_complora.progress import Quiet
from cl_complora.run import run


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_scenario, tiny_strategy):
    out = tmp_path_factory.mktemp("runs")
    return run(load_scenario(str(tiny_scenario)), load_strategy(str(tiny_strategy)), out=out)


def cli(monkeypatch, capsys, *words) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["cl-complora", *map(str, words)])
    with pytest.raises(SystemExit) as exit_:
        main()
    told = capsys.readouterr()
    return exit_.value.code or 0, told.out, told.err


@pytest.mark.parametrize("after", [None, "0", "1", "2", "warm", "cold"])
def test_every_state_measures_what_the_run_recorded(finished, after):
    state = open_run(finished.folder, after)
    assert state.after == {None: ["warm", "cold"], "0": [], "1": ["warm"], "warm": ["warm"]}.get(
        after, ["warm", "cold"]
    )
    found = measure_stream(state, as_recorded=True)
    assert [one.name for one in found] == ["warm", "cold", "colours"]
    assert all(one.accuracy == one.recorded for one in found)


def test_a_task_left_out_is_the_other_one_alone(finished):
    both, without = open_run(finished.folder), open_run(finished.folder, scale={"warm": 0.0})
    half, start = open_run(finished.folder, scale={"warm": 0.5}), open_run(finished.folder, "0")
    key = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    w = {name: s.loaded.model.state_dict()[key] for name, s in vars_of(both, without, half, start).items()}
    assert not torch.equal(w["both"], w["without"])
    assert torch.allclose(w["half"], (w["both"] + w["without"]) / 2, atol=1e-6)
    assert not torch.equal(w["without"], w["start"])


def vars_of(both, without, half, start) -> dict:
    return {"both": both, "without": without, "half": half, "start": start}


SCRIPT = """
import json, sys
import open_clip, torch
from PIL import Image
name, out, files, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
open_clip.add_model_config(f"{out}/{name}.json")
page = open(f"{out}/{name}.md").read()
start = page.index("model, _, preprocess"); end = page.index("model.eval()")
import os; os.chdir(out)
exec(page[start:end])
model.eval()
with torch.no_grad():
    text = model.encode_text(tokenizer(texts), normalize=True)
    image = torch.stack([preprocess(Image.open(f).convert("RGB")) for f in files])
    print(json.dumps((model.encode_image(image, normalize=True) @ text.T).argmax(1).tolist()))
assert not any(m.startswith("cl_complora") for m in sys.modules)
"""


def test_the_exported_file_gives_the_same_answers_in_plain_open_clip(finished, tmp_path, class_folders):
    state = open_run(finished.folder)
    files = export(state, tmp_path / "mine.safetensors")
    assert [f.name for f in files] == ["mine.safetensors", "mine.json", "mine.md"]
    images = sorted((class_folders / "test").glob("*/*.png"))
    space = label_space(state, task="cold")
    texts = [prompts[0] for prompts in space.prompts]
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        "mine",
        str(tmp_path),
        json.dumps(list(map(str, images))),
        json.dumps(texts),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = [one.classes[0][0] for one in predict(state, images, space.with_template(0), top=1)]
    assert [space.class_names[i] for i in json.loads(done.stdout)] == expected


def test_the_embedded_model_is_exported_with_its_tokenizer(tmp_path):
    out = run(
        load_scenario("embedded", ["test_limit=16", "zero_shot.0.images=154", "reference=null"]),
        load_strategy("complora", ["training.steps=2"]),
        out=tmp_path / "runs",
        progress=Quiet(),
    )
    state = open_run(out.folder)
    files = export(state, tmp_path / "out" / "small.safetensors")
    assert files[-1].name == "small.bpe.txt.gz"
    data = load(plan(state.scenario, 0), "task-incremental", state.loaded.pixels)
    task, images = data.tasks[2], []
    for index in range(16):
        path = tmp_path / f"{index}.png"
        Image.fromarray(task.test.pixels[index].permute(1, 2, 0).numpy()).save(path)
        images.append(str(path))
    texts = [prompts[0] for prompts in task.space.prompts]
    command = [sys.executable, "-c", SCRIPT, "small", str(tmp_path / "out"), json.dumps(images), json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    right = (torch.tensor(json.loads(done.stdout)) == task.test.labels[:16]).double().mean()
    assert right == accuracy(
        state.classifier(), task.test.pixels[:16], task.test.labels[:16], task.space.with_template(0)
    )


def test_half_precision_halves_the_file(finished, tmp_path):
    state = open_run(finished.folder)
    whole, half = (
        export(state, tmp_path / f"{n}.safetensors", n == "half")[0].stat().st_size for n in ("whole", "half")
    )
    assert half < 0.6 * whole


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["export", "{run}", "-o", "x.pt"], "must end in .safetensors"),
        (["export", "{run}", "-o", "ViT-B-16.safetensors"], "choose another"),
        (["export", "{run}", "--after", "hot"], "has finished warm, cold"),
        (["export", "nowhere"], "there is no such folder"),
        (["eval", "{run}/.."], "is no run"),
        (["eval", "{run}", "--without", "hot"], "no task 'hot'"),
        (["eval", "{run}", "--scale", "warm"], "must have the form TASK=FACTOR"),
        (["eval", "{run}", "--data", "nowhere"], "there is no such folder"),
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
def test_bad_input_is_told_in_one_line(words, told, finished, class_folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = {"run": finished.folder, "png": class_folders / "test" / "red" / "0.png"}
    code, out, err = cli(monkeypatch, capsys, *(word.format(**places) for word in words))
    assert code == 2 and told.replace("{{", "{").replace("}}", "}") in err and err.count("\n") == 1, err
    assert not out and not list(tmp_path.iterdir())


def test_predictions_of_all_kinds_of_files(finished, tmp_path, monkeypatch, capsys, class_folders):
    folder = tmp_path / "some pictures"
    folder.mkdir()
    source = Image.open(class_folders / "test" / "red" / "0.png")
    for mode, name in (("L", "grey.PNG"), ("CMYK", "print.JPG"), ("P", "Palette ü.gif"), ("RGBA", "see-through.png")):
        source.convert(mode).save(folder / name)
    (folder / "cut off.jpg").write_bytes(b"\xff\xd8\xff")
    code, out, err = cli(monkeypatch, capsys, "predict", finished.folder, folder, "--top", "2")
    assert code == 1 and "cut off.jpg: cannot be read as an image" in err
    assert len(out.splitlines()) == 4 and all(line.count("%") == 2 for line in out.splitlines())
    code, out, err = cli(
        monkeypatch, capsys, "predict", finished.folder, folder / "grey.PNG", "--classes", "sky, sea", "--json"
    )
    (row,) = json.loads(out)
    assert code == 0 and {c["class"] for c in row["classes"]} == {"sky", "sea"}
    assert sum(c["probability"] for c in row["classes"]) == pytest.approx(1, abs=1e-5)
    state = open_run(finished.folder)
    assert label_space(state).class_names == ("red", "yellow", "green", "blue")
    assert label_space(state, prompts=["so {}"]).prompts[0] == ("so red",)
    assert len(pictures([folder, folder / "grey.PNG"])) == 6


def test_other_folders_are_measured_with_their_interval(finished, tmp_path, monkeypatch, capsys, class_folders):
    state = open_run(finished.folder)
    whole = measure_folder(state, class_folders)
    assert whole.images == 24 and 0 <= whole.accuracy <= 1 and whole.recorded is None
    code, out, _ = cli(monkeypatch, capsys, "eval", finished.folder, "--data", class_folders)
    assert code == 0 and "95 % interval" in out and class_folders.name in out
    code, out, _ = cli(monkeypatch, capsys, "eval", finished.folder, "--without", "warm", "--json")
    assert code == 0 and [row["recorded"] for row in json.loads(out)] == [None] * 3


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
    out = run(load_scenario(str(tmp_path / "s.yaml")), load_strategy(str(tiny_strategy)), out=tmp_path / "runs")
    assert measure_stream(open_run(out.folder), True)[0].images == 6
    paint(tmp_path / "set" / "test" / "red" / "9.png", (1, 2, 3), 9)
    with pytest.raises(UserError, match="'one' has other pictures now"):
        measure_stream(open_run(out.folder), True)


def test_init_writes_a_scenario_that_runs(tmp_path, monkeypatch, capsys):
    """Folders with spaces, unicode and upper-case suffixes, divided or not, one of them a folder of folders."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        for name in ("Große Katze", "dog"):
            paint(tmp_path / "my pets" / name / f"{number}.PNG", (50 * number, 90, 20), number)
        for name in ("1", "2"):
            for split in ("train", "test"):
                paint(tmp_path / "sets" / "yes" / split / name / f"{number}.jpeg", (200, 40 * number, 20), number)
            paint(tmp_path / "sets" / "other" / name / f"{number}.png", (20, 20, 50 * number), number)
    code, out, _ = cli(monkeypatch, capsys, "init", "my pets", "sets", "-o", "mine.yaml")
    assert code == 0 and "my pets: 2 classes, 4 training and 4 test images" in out
    scenario = load_scenario("mine.yaml").value
    assert [task.name for task in scenario.tasks] == ["my pets", "other", "yes"] and scenario.shots == 2
    code, out, _ = cli(monkeypatch, capsys, "check", "mine.yaml")
    assert code == 0 and "is fine (3 tasks, 12 training images)" in out
    quick = ["--set", "training.steps=2", "--set", "zero_shot.0.images=20"]
    code, out, err = cli(monkeypatch, capsys, "run", "mine.yaml", "-s", "lora", *quick)
    assert code == 0 and "Retention general" in out, err
    code, _, err = cli(monkeypatch, capsys, "init", "my pets", "-o", "mine.yaml")
    assert code == 2 and "--force overwrites it" in err
    text, _ = describe([tmp_path / "my pets", tmp_path / "my pets"], tmp_path / "a.yaml", shots=1)
    assert 'name: "my pets-2"' in text and "shots: 1" in text
