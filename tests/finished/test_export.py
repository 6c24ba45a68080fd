"""A finished run as an open_clip checkpoint: plain open_clip gives the same answers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

from builders.processes import Process, completed
from cl_complora.clip.evaluate import accuracy
from cl_complora.config import load_scenario, load_strategy
from cl_complora.data.planning import plan
from cl_complora.data.tasks import load
from cl_complora.errors import UserError
from cl_complora.finished.asked_sets import Measured
from cl_complora.finished.eval_request import EvalRequest, open_request
from cl_complora.finished.export import export
from cl_complora.finished.model_files import open_model
from cl_complora.finished.predict import label_space, predict
from cl_complora.finished.states import open_run
from cl_complora.progress import Quiet
from cl_complora.run.stream import run

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
"""
# Of ours, nothing was needed.
ALONE = '\nassert not any(m.startswith("cl_complora") for m in sys.modules)'


def run_script(*words: str) -> None:
    """Without its imports, which take longer than all the rest; that it stands ALONE is told once."""
    sys.argv[1:] = words
    exec(SCRIPT, {})


def test_the_exported_file_gives_the_same_answers_in_plain_open_clip(tiny_run, tmp_path, class_folders):
    state = open_run(tiny_run.folder)
    files = export(state, tmp_path / "mine.safetensors")
    assert [f.name for f in files] == [
        "mine.safetensors",
        "mine.json",
        "mine.md",
        "mine.open_clip_config.json",
    ]
    images = sorted((class_folders / "test").glob("*/*.png"))
    space = label_space(state, task="cold")
    texts = [prompts[0] for prompts in space.prompts]
    command = [
        sys.executable,
        "-c",
        SCRIPT + ALONE,
        "mine",
        str(tmp_path),
        json.dumps(list(map(str, images))),
        json.dumps(texts),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = [one.classes[0][0] for one in predict(state, images, space.with_template(0), top=1)]
    assert [space.class_names[i] for i in json.loads(done.stdout)] == expected


def on_digits(what: object, is_run: bool = False) -> list[Measured]:
    opened = open_request(EvalRequest(str(what), is_run, ("digits",), device="cpu"))
    return opened.measured(opened.answer(opened.parts()))


def test_the_embedded_model_is_exported_with_its_tokenizer(tmp_path):
    tasks = ", ".join(f"{{name: {n}, source: {{kind: world, domain: {n}}}}}" for n in ("digits", "sketches"))
    settings = [f"tasks=[{tasks}]", "test_limit=16", "zero_shot.0.images=154", "reference=null"]
    out = run(
        load_scenario("embedded", settings),
        load_strategy("lora", ["adapter.rank=2", "training.steps=2", "training.batch_size=4"]),
        out=tmp_path / "runs",
        progress=Quiet(),
        evaluate=False,
        analysis=False,
    )
    state = open_run(out.folder)
    files = export(state, tmp_path / "out" / "small.safetensors")
    assert files[-1].name == "small.bpe.txt.gz"
    exported = on_digits(files[0])
    assert exported == on_digits(out.folder, is_run=True) != on_digits("embedded")
    data = load(plan(state.scenario, 0), "task-incremental", state.loaded.pixels)
    task, images = data.tasks[1], []
    for index in range(16):
        path = tmp_path / f"{index}.png"
        Image.fromarray(task.test.pixels[index].permute(1, 2, 0).numpy()).save(path)
        images.append(str(path))
    texts = [prompts[0] for prompts in task.space.prompts]
    words = ("small", str(tmp_path / "out"), json.dumps(images), json.dumps(texts))
    done = completed(Process(run_script, *words))
    assert done.returncode == 0, done.stderr
    right = (torch.tensor(json.loads(done.stdout)) == task.test.labels[:16]).double().mean()
    assert right == accuracy(
        state.classifier(), task.test.pixels[:16], task.test.labels[:16], task.space.with_template(0)
    )


def test_half_precision_halves_the_file(tiny_run, tmp_path):
    state = open_run(tiny_run.folder)
    whole, half = (
        export(state, tmp_path / f"{n}.safetensors", n == "half")[0].stat().st_size for n in ("whole", "half")
    )
    assert half < 0.6 * whole


def test_an_export_keeps_its_normalisation_and_its_way_to_resize(
    tiny_files, tmp_path, tiny_scenario, tiny_strategy
):
    settings = ["model.mean=[0,0.1,0.2]", "model.std=[1,1,1]", "model.image_size=40"]
    quick = load_strategy(str(tiny_strategy), ["training.steps=1"])
    out = run(load_scenario(str(tiny_scenario), settings), quick, out=tmp_path / "runs")
    state = open_run(out.folder)
    loaded = open_model(str(export(state, tmp_path / "resized.safetensors")[0]))
    assert loaded.mean == state.loaded.mean == (0, 0.1, 0.2) and loaded.std == (1, 1, 1)
    assert loaded.pixels == state.loaded.pixels and loaded.pixels.size == (40, 40)
    assert loaded.sha256 == open_model(str(tmp_path / "resized.safetensors")).sha256


def with_labels(run_folder, place, **changes):
    """A copy of a run in whose classes.json something else stands about a task."""
    copy = shutil.copytree(run_folder, place)
    labels = json.loads((copy / "classes.json").read_text())
    labels["warm"] |= changes
    (copy / "classes.json").write_text(json.dumps(labels))
    return copy


def test_names_and_prompts_are_text_on_the_page(tiny_run, tmp_path):
    names = ["`mine-peft/` holds the same update", "<script>alert(1)</script>"]
    prompts = ["a\n```python\nimport evil\n```\n{}"]  # as a template in YAML may be
    folder = with_labels(tiny_run.folder, tmp_path / "run", classes=names, prompts=prompts)
    export(open_run(folder), tmp_path / "mine.safetensors")
    page = (tmp_path / "mine.md").read_text()
    assert page.count("```") == 2 and "<script" not in page and "`mine-peft/`" not in page
    assert "&lt;script&gt;alert(1)" in page and "import evil" in page


@pytest.mark.parametrize(
    ("after", "scale", "told"),
    [
        (None, {}, ["warm", "cold"]),
        ("warm", {}, ["warm"]),
        (None, {"warm": 0.0}, ["cold"]),
        (None, {"warm": 0.5}, ["warm", "cold"]),
        ("0", {}, []),
    ],
)
def test_the_page_tells_the_classes_that_the_weights_have_seen(tiny_run, tmp_path, after, scale, told):
    export(open_run(tiny_run.folder, after, scale), tmp_path / "mine.safetensors")
    page = (tmp_path / "mine.md").read_text()
    assert re.findall(r"^\* \*\*(\w+)\*\*: ", page, re.M) == told
    assert ("Classes that it was trained on" in page) is bool(told)


@pytest.mark.parametrize("name", ["a\n## b", "a\x1b[2J", " ", "a" * 501])
def test_a_class_name_that_none_can_have_is_damage(tiny_run, tmp_path, name):
    folder = with_labels(tiny_run.folder, tmp_path / "run", classes=["red", name])
    with pytest.raises(UserError, match=r"classes\.json: damaged.*classes\.1: .*class name"):
        export(open_run(folder), tmp_path / "mine.safetensors")
    assert not (tmp_path / "mine.md").exists()
