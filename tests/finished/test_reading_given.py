"""How ``predict`` and an exported page read pictures that a run never saw: as the run read its own."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

from cl_complora.finished import predict
from cl_complora.finished.export import export
from cl_complora.finished.given_pictures import conversion_of
from cl_complora.finished.states import open_run

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@torch.no_grad()
def features(state, pixels):
    return state.classifier().eval().image_features(pixels[None])


def on(state, *backgrounds):
    """The state of a run whose tasks have these backgrounds."""
    tasks = [
        task.model_copy(update={"source": task.source.model_copy(update={"background": ground})})
        for task, ground in zip(state.scenario.value.tasks, backgrounds, strict=True)
    ]
    value = state.scenario.value.model_copy(update={"tasks": tasks})
    return replace(state, scenario=replace(state.scenario, value=value))


@pytest.fixture
def picture(tmp_path):
    """A rotated photograph would have no transparency, and a drawing no rotation: this has both."""
    image = Image.new("RGBA", (40, 30), (200, 30, 30, 255))
    image.paste((10, 90, 200, 255), (0, 0, 40, 10))
    image.paste((0, 255, 0, 0), (0, 20, 20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "picture.png", exif=exif)
    return tmp_path / "picture.png"


def test_pictures_for_a_task_are_put_on_its_background(tiny_run, picture):
    state, said = on(open_run(tiny_run.folder), "black", "white"), []
    first, second = (task.name for task in state.scenario.value.tasks)
    for task, ground in ((first, BLACK), (second, WHITE)):
        assert conversion_of(state, [picture], tell=said.append, task=task).background == ground
    assert not said
    assert conversion_of(state, [picture], tell=said.append).background == WHITE
    assert "several backgrounds" in said[0]
    assert conversion_of(on(state, "black", "black"), [picture]).background == BLACK


def test_predict_asks_for_the_pictures_of_the_task(tiny_run, picture, monkeypatch):
    state, read = on(open_run(tiny_run.folder), "black", "white"), []
    given = predict.conversion_of
    monkeypatch.setattr(predict, "conversion_of", lambda *words: read.append(given(*words)) or read[-1])
    for task, ground in zip((t.name for t in state.scenario.value.tasks), (BLACK, WHITE), strict=True):
        question = predict.Question(task=task)
        assert [one.error for one in predict.classify(lambda: state, [picture], question, False, print)] == [
            None
        ]
        assert read.pop().background == ground


def test_stored_values_for_a_task_are_those_of_its_own_range(tiny_run, tmp_path):
    values = torch.arange(64).reshape(8, 8).numpy().astype("uint16") * 64
    Image.fromarray(values).save(tmp_path / "deep.tiff")
    state = open_run(tiny_run.folder)
    first, second = (task.name for task in state.scenario.value.tasks)
    state = replace(state, config={**state.config, "ranges": {first: [0, 4095], second: [0, 8191]}})
    for task, high in ((first, 4095), (second, 8191)):
        assert conversion_of(state, [tmp_path / "deep.tiff"], task=task).values().high == high


@pytest.mark.parametrize(("backgrounds", "ground"), [("black", BLACK), ("white", WHITE)])
def test_the_page_reads_a_picture_as_the_run_does(
    tiny_run, tmp_path, picture, monkeypatch, backgrounds, ground
):
    state = on(open_run(tiny_run.folder), backgrounds, backgrounds)
    export(state, tmp_path / "m.safetensors")
    monkeypatch.chdir(tmp_path)
    lines = re.search(r"```python\n(.*?)```", (tmp_path / "m.md").read_text(), re.S)[1]
    found: dict = {}
    exec(lines.replace("picture.jpg", "picture.png"), found)
    conversion = conversion_of(state, [picture])
    assert conversion.background == ground
    pixels = replace(state.loaded.pixels, conversion=conversion).read(picture)
    ours = features(state, pixels)
    assert torch.allclose(found["image"], ours, atol=1e-5)
    assert not torch.allclose(found["image"], features(state, as_stored(picture, state)), atol=1e-3)


def as_stored(picture, state):
    """The picture without its rotation and its transparency."""
    image = Image.open(picture).convert("RGB")
    image.save(picture.with_name("stored.png"))
    return state.loaded.pixels.read(picture.with_name("stored.png"))


def test_the_page_tells_what_its_lines_do_not_do(tiny_run, tmp_path):
    state = on(open_run(tiny_run.folder), "black", "white")
    first = state.scenario.value.tasks[0].name
    state = replace(state, config={**state.config, "ranges": {first: [0, 4095]}})
    export(state, tmp_path / "m.safetensors")
    page = (tmp_path / "m.md").read_text()
    assert "several backgrounds; these lines put them on white" in page
    assert f"stored values ({first}: 0 to 4095)" in page
    export(open_run(tiny_run.folder), tmp_path / "plain.safetensors")
    page = (tmp_path / "plain.md").read_text()
    assert "backgrounds" not in page and "stored values" not in page


def test_the_page_pads_as_the_model_does(tiny_run, tmp_path, picture, monkeypatch):
    state = open_run(tiny_run.folder)
    state.loaded.pixels = replace(state.loaded.pixels, resize="longest", fill=200)
    export(state, tmp_path / "m.safetensors")
    monkeypatch.chdir(tmp_path)
    lines = re.search(r"```python\n(.*?)```", (tmp_path / "m.md").read_text(), re.S)[1]
    found: dict = {}
    exec(lines.replace("picture.jpg", "picture.png"), found)
    ours = features(state, state.loaded.pixels.read(picture))
    assert torch.allclose(found["image"], ours, atol=1e-5)
