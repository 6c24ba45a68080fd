"""Measuring a run or a model of none on a stream, a folder, a data set; predictions of pictures."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from builders.caption_tasks import pairs
from builders.captions import painted
from builders.commands import cli
from builders.images import paint
from cl_complora.errors import UserError
from cl_complora.finished.evaluation import find_data
from cl_complora.finished.export import export
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
