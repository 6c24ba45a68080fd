"""Measuring a run or a model of none on a stream, a folder, a data set; predictions of pictures."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from builders.caption_tasks import pairs
from builders.captions import painted
from builders.commands import cli
from builders.images import paint
from cl_complora.data.images.value_range import ValueRange
from cl_complora.errors import UserError
from cl_complora.finished import states
from cl_complora.finished.evaluation import find_data
from cl_complora.finished.export import export
from cl_complora.finished.given_pictures import conversion_of
from cl_complora.finished.predict import label_space, pictures
from cl_complora.finished.states import open_run


def test_predictions_of_all_kinds_of_files(tiny_run, tmp_path, monkeypatch, capsys, class_folders):
    folder = tmp_path / "some pictures"
    folder.mkdir()
    source = Image.open(class_folders / "test" / "red" / "0.png")
    for mode, name in (
        ("L", "grey.PNG"),
        ("CMYK", "print.JPG"),
        ("P", "Palette ü.gif"),
        ("RGBA", "see-through.png"),
    ):
        source.convert(mode).save(folder / name)
    (folder / "cut off.jpg").write_bytes(b"\xff\xd8\xff")
    code, out, err = cli(monkeypatch, capsys, "predict", tiny_run.folder, folder, "--top", "2")
    assert code == 1 and "cut off.jpg: cannot be read as an image" in err
    assert len(out.splitlines()) == 4 and all(line.count("%") == 2 for line in out.splitlines())
    code, out, err = cli(
        monkeypatch,
        capsys,
        "predict",
        tiny_run.folder,
        folder / "grey.PNG",
        "--classes",
        "sky, sea",
        "--json",
    )
    (row,) = json.loads(out)
    assert code == 0 and {c["class"] for c in row["classes"]} == {"sky", "sea"}
    assert sum(c["probability"] for c in row["classes"]) == pytest.approx(1, abs=1e-5)
    state = open_run(tiny_run.folder)
    assert label_space(state).class_names == ("red", "yellow", "green", "blue")
    assert label_space(state, prompts=["so {}"]).prompts[0] == ("so red",)
    assert len(pictures([folder, folder / "grey.PNG"])) == 6


def stored(folder, change):
    """Two grey pictures, one of them dark; their values are those of eight bits, changed."""
    folder.mkdir()
    for number, most in enumerate((255, 40)):
        values = np.random.default_rng(number).integers(0, most + 1, (40, 40)).astype(np.uint16)
        values[0, 0] = most
        Image.fromarray(change(values)).save(folder / f"{number}.tiff")
    return sorted(folder.iterdir())


def learned_with(run, low, high):
    state = states.open_run(run.folder)
    ranges = {name: [low, high] for name in ("warm", "cold")}
    return replace(state, config={**state.config, "ranges": ranges})


@pytest.mark.parametrize(
    ("name", "change", "same", "told"),
    [
        ("own", lambda v: v << 4, True, None),
        ("all", lambda v: v << 8, True, "from 0 to 65280, and not from 0 to 4095 (12 bits), as this run"),
        ("parts", lambda v: (v / 255).astype(np.float32), True, "stored values from 0 to 1 become 0 to 255"),
        ("some", lambda v: (v << 4) + (v == 255) * np.uint16(300), True, "what lies beyond is clipped"),
        ("few", lambda v: v << 2, False, "from 0 to 1020, and become dark; if that is all"),
    ],
)
def test_stored_values_that_are_not_those_of_the_run_are_told(tiny_run, tmp_path, name, change, same, told):
    """16 bits or fractions where the run learned 12 bits would be white or black, and say nothing."""
    state, said = learned_with(tiny_run, 0, 4095), []
    paths = stored(tmp_path / name, change)
    flat = stored(tmp_path / "flat", lambda values: values.astype(np.uint8))
    pixels = replace(state.loaded.pixels, conversion=conversion_of(state, paths, tell=said.append))
    for path, other in zip(paths, flat, strict=True):
        seen, expected = pixels.read(path), state.loaded.pixels.read(other)
        assert same == bool((seen.int() - expected.int()).abs().max() <= 1)
    assert len(said) == (told is not None) and (told or "") in "".join(said)
    if name == "few":
        assert said[0].endswith("--range 10")
        pixels = replace(pixels, conversion=conversion_of(state, paths, ValueRange.of_bits(10)))
        assert torch.equal(pixels.read(paths[0]), state.loaded.pixels.read(flat[0]))


def test_a_range_that_the_scenario_asks_for_is_kept(tiny_run, tmp_path):
    state, said = learned_with(tiny_run, 0, 1023), []
    located = state.scenario
    tasks = [
        task.model_copy(update={"source": task.source.model_copy(update={"range": 10})})
        for task in located.value.tasks
    ]
    chosen = replace(located, value=located.value.model_copy(update={"tasks": tasks}))
    paths = stored(tmp_path / "given", lambda values: values << 4)
    read = conversion_of(replace(state, scenario=chosen), paths, tell=said.append)
    assert read.values() == ValueRange(0, 1023) and "beyond is clipped" in said[0]
    read = conversion_of(states.open_run(tiny_run.folder), paths, tell=said.append)
    assert read.values() == ValueRange(0, 4095) and "the run's own pictures have 8 bits" in said[1]


def test_the_range_of_given_pictures_is_told_by_predict_and_can_be_given(
    tiny_run, tmp_path, monkeypatch, capsys
):
    state = learned_with(tiny_run, 0, 4095)
    monkeypatch.setattr(states, "open_run", lambda *given, **more: state)
    paths = stored(tmp_path / "given", lambda values: values << 8)
    flat = stored(tmp_path / "flat", lambda values: values.astype(np.uint8))
    answers = {}
    for words in (paths, flat, [*paths, "--range", "16"], [*paths, "--range", "0,65535"]):
        code, out, err = cli(monkeypatch, capsys, "predict", tiny_run.folder, *words, "--json")
        answers[len(answers)] = [row["classes"] for row in json.loads(out)]
        assert code == 0 and err.startswith("note: stored values from") == (words is paths), err
    assert answers[0] == answers[1] == answers[2] == answers[3]
    for text in ("many", "0", "33", "5,5", "1,2,3", "0,inf"):
        code, _, err = cli(monkeypatch, capsys, "predict", tiny_run.folder, *paths, "--range", text)
        assert code == 2 and f"--range {text}: must be LOW,HIGH" in err


def test_other_folders_are_measured_with_their_interval(tiny_run, monkeypatch, capsys, class_folders):
    code, out, _ = cli(monkeypatch, capsys, "eval", tiny_run.folder, "--data", class_folders, "--json")
    (whole,) = json.loads(out)
    assert code == 0 and whole["images"] == 24 and 0 <= whole["accuracy"] <= 1 and whole["recorded"] is None
    code, out, _ = cli(monkeypatch, capsys, "eval", tiny_run.folder, "--data", class_folders)
    assert code == 0 and "95 % interval" in out and class_folders.name in out
    code, out, _ = cli(monkeypatch, capsys, "eval", tiny_run.folder, "--without", "warm", "--json")
    assert code == 0 and [row["recorded"] for row in json.loads(out)] == [None] * 3
    words = ("--without", "warm", "--scale", "cold=0.5")
    code, out, _ = cli(monkeypatch, capsys, "eval", tiny_run.folder, *words)
    assert code == 0 and "after cold, without warm, 0.5 × cold" in " ".join(out.split())


def evaluated(monkeypatch, capsys, *words) -> dict[str, float]:
    code, out, err = cli(monkeypatch, capsys, "eval", *words, "--json")
    assert code == 0, err
    return {row["name"]: row["accuracy"] for row in json.loads(out)}


def test_a_model_of_no_run_is_measured_on_a_whole_scenario(
    tiny_run, tiny_scenario, tiny_files, tmp_path, monkeypatch, capsys
):
    """Three ways to a model, each with what the run recorded of the same weights."""
    config, weights = tiny_files
    rows = tiny_run.results["accuracy"]
    before, _, last = (
        {"tiny/warm": row[0], "tiny/cold": row[1], "tiny/colours": zero_shot}
        for row, zero_shot in zip(rows, tiny_run.results["zero_shot"]["colours"], strict=True)
    )
    scenario = ("--data", tiny_scenario)
    named = ("tiny_clip", "--model-config", config, "--pretrained", weights)
    assert evaluated(monkeypatch, capsys, *named, *scenario) == before
    assert evaluated(monkeypatch, capsys, tiny_run.folder, "--after", "0", *scenario) == before
    assert evaluated(monkeypatch, capsys, tiny_run.folder, *scenario) == last
    file = export(open_run(tiny_run.folder), tmp_path / "again.safetensors")[0]
    assert evaluated(monkeypatch, capsys, file, *scenario) == last
    asked = find_data(str(tiny_scenario), prompts=["so {}"]).plans
    assert {one.prompts for one in (*asked.tasks, *asked.zero_shot)} == {("so {}",)}


def test_data_are_found_by_name(tmp_path, monkeypatch, class_folders):
    """A world domain and a registered data set come with prompts; a folder of such a name is not taken for
    either."""
    (digits,) = find_data("digits", default=["so {}"]).plans.zero_shot
    assert digits.name == "digits" and len(digits.test) == 400 and digits.prompts != ("so {}",)
    crops = "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop"
    for number, name in enumerate([*crops.split(), "Residential", "River", "SeaLake"]):
        for picture in range(2):
            paint(tmp_path / "eurosat" / "2750" / name / f"{picture}.jpg", (20 * number, 90, 20), picture)
    monkeypatch.setenv("CL_COMPLORA_DATA", str(tmp_path))
    (satellite,) = find_data("eurosat").plans.zero_shot
    assert "annual crop land" in satellite.class_names and "satellite" in satellite.prompts[0]
    assert find_data("eurosat", prompts=["a {}"]).plans.zero_shot[0].prompts == ("a {}",)
    (folder,) = find_data(str(class_folders), default=["so {}"]).plans.zero_shot
    assert folder.prompts == ("so {}",) and folder.name == class_folders.name
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is a data set, and a folder here; write ./eurosat for the folder"):
        find_data("eurosat")
    assert find_data("./eurosat").plans.zero_shot[0].class_names == ("2750",)
    paint(tmp_path / "twice" / "a b" / "0.png", (1, 2, 3), 0)
    paint(tmp_path / "twice" / "a_b" / "0.png", (1, 2, 3), 0)
    with pytest.raises(UserError, match="two classes are both called 'a b'"):
        find_data("twice")


def test_prompts_of_ones_own_are_for_all_that_has_classes(tiny_scenario, tmp_path):
    painted(tmp_path, [f"{number}.png" for number in range(4)])
    rows = [{"image": f"{number}.png", "labels": ["cat", "dog"][: number % 2 + 1]} for number in range(4)]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    several = "{name: several, source: {kind: multi-label, file: labels.jsonl}}"
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(f"{tiny_scenario.read_text()}\nmulti_label:\n  - {several}\n")
    plans = find_data(str(scenario), ["so {}"]).plans
    for one in (*plans.tasks, *plans.zero_shot, *plans.multi_label):
        assert one.prompts == ("so {}",), one.name
    assert plans.multi_label[0].compound.texts == ("so cat and a dog",)
    assert find_data(str(scenario)).plans.multi_label[0].prompts == ("a photo of a {}.",)


def test_a_prompt_without_a_class_is_refused(tiny_scenario, tmp_path):
    pairs(tmp_path)
    head = tiny_scenario.read_text().partition("tasks:")[0]
    told = f"tasks:\n  - name: told\n    source: {{kind: captions, file: {tmp_path / 'pairs.jsonl'}}}\n"
    (tmp_path / "scenario.yaml").write_text(head + told)
    assert find_data(str(tmp_path / "scenario.yaml")).plans.tasks
    with pytest.raises(UserError, match="--prompt: tiny has pictures with captions, and no class to fill in"):
        find_data(str(tmp_path / "scenario.yaml"), ["so {}"])
