"""The page of a run of which something is missing, damaged or not there yet."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file, save_file

from builders.pages import read
from builders.reported import forgetful_run
from cl_complora import metrics
from cl_complora.analysis.mistakes import pictures
from cl_complora.errors import UserError
from cl_complora.report.html import write_report
from cl_complora.store.folder import RunDir


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory) -> Path:
    return forgetful_run(tiny_run.folder, tmp_path_factory.mktemp("runs") / "seed0")


def page_of(folder: Path) -> str:
    path = write_report(folder)
    read(path)
    return path.read_text(encoding="utf-8")


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "seed0"))


def test_a_run_that_measured_nothing_names_no_command_that_measures(copied):
    """The command line has no word for it, and would refuse the run's folder."""
    assert "Run it again" in page_of(copied)
    config = yaml.safe_load((copied / "config.yaml").read_text())
    (copied / "config.yaml").write_text(yaml.safe_dump({**config, "evaluate": False}))
    page = page_of(copied)
    assert "Run it again" not in page and "evaluate=False" in page


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("predictions", "Single answers cannot be shown"),
        ("classes.json", "Single answers cannot be shown"),
        ("splits", "Single answers cannot be shown"),
        ("tasks", "The records of zero-shot, warm, cold are missing"),
        ("config.yaml", "config.yaml is missing"),
        ("analysis", ""),
        ("explain.json", ""),
    ],
)
def test_a_file_that_is_missing_leaves_its_part_out(gone, told, copied, request):
    if gone in ("tasks", "config.yaml"):  # which leave numbers out of what is drawn
        request.getfixturevalue("drawn")
    place = copied / gone
    if place.exists():
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    page = read(write_report(copied))
    assert told in page.text and "Accuracy matrix" in page.tables


@pytest.mark.parametrize("broken", ["tasks/001-warm.json", "explain.json", "analysis/001-warm.json"])
def test_a_damaged_file_is_named_and_left_out(broken, copied):
    (copied / broken).parent.mkdir(exist_ok=True)
    (copied / broken).write_text('{"row": [')
    assert f"{broken} is damaged and left out" in read(write_report(copied)).text


NOT_NUMBERS = [10**400, -(2**63) - 1, "12", [[1]], True]


@pytest.mark.parametrize("wrong", NOT_NUMBERS, ids=lambda value: str(value)[:9])
@pytest.mark.parametrize(
    "path",
    [
        ("accuracy", 0, 0),
        ("zero_shot_images", "colours"),
        ("tasks_detail", 0, "test_images"),
        ("tasks_detail", 0, "train_seconds"),
        ("tasks_detail", 1, "classes"),
        ("tasks_detail", 1, "shots"),
    ],
)
def test_what_is_no_number_is_told_in_one_line(path, wrong, copied):
    results = json.loads((copied / "results.json").read_text())
    part = results
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = wrong
    (copied / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=r"results\.json: (damaged|is not what a run writes)"):
        write_report(copied)


def test_accuracies_and_images_beyond_all_bounds_are_drawn(copied):
    results = json.loads((copied / "results.json").read_text())
    results["tasks_detail"][0]["test_images"] = results["zero_shot_images"]["colours"] = 2**62
    results["zero_shot"]["colours"][1] = -7.0
    results["accuracy"][1][1] = 1e9
    (copied / "results.json").write_text(json.dumps(results))
    shutil.rmtree(copied / "predictions")
    assert "Accuracy matrix" in read(write_report(copied)).tables


def test_a_seed_of_thousands_of_digits_is_told_in_one_line(copied):
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", f"seed: 0x{'f' * 6000}"))
    with pytest.raises(UserError, match=r"config\.yaml: damaged.*more than 64 bits"):
        write_report(copied)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("scenario", "tasks", 0, "name"), 3),
        (("scenario", "tasks"), {}),
        (("scenario", "model"), "x"),
        (("scenario", "model", "pretrained"), ["x"]),
        (("strategy", "adapter"), 3),
        (("strategy", "optimiser", "lr"), "x"),
        (("strategy", "optimiser", "rates"), {"text": "x"}),
    ],
)
def test_a_configuration_of_another_form_is_told_in_one_line(path, value, copied):
    config = yaml.safe_load((copied / "config.yaml").read_text())
    part = config
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=rf"config\.yaml: damaged.*{path[0]}\.{path[1]}"):
        write_report(copied)


@pytest.mark.parametrize("content", ["[" * 200_000, '{"split": 1}', '{"split": "test", "class": 3}', "pipe"])
def test_a_hostile_split_leaves_its_part_out(content, copied):
    for split in copied.glob("splits/*"):
        split.unlink()
        os.mkfifo(split) if content == "pipe" else split.write_text(content)
    assert "Single answers cannot be shown" in read(write_report(copied)).text


@pytest.mark.parametrize("content", ['{"pairs": [{"new": 1}]}', '{"pairs": 3}', '{"pairs": [null]}', "[]"])
def test_an_explanation_of_another_form_is_left_out(content, copied):
    (copied / "explain.json").write_text(content)
    assert "left out" in read(write_report(copied)).text


def test_damaged_answers_are_left_out(copied):
    path = RunDir(copied).predictions(1, "cold")
    answers = load_file(path)
    for wrong in (
        {"warm/label": answers["warm/label"][:5], "warm/share": answers["warm/share"][:5]},
        {"warm/label": answers["warm/label"] + 7, "warm/share": answers["warm/share"]},
        {"warm/label": answers["warm/label"] - 7, "warm/share": answers["warm/share"]},
        {"cold/label": answers["cold/label"]},
    ):
        save_file(wrong, path)
        assert "Single answers cannot be shown" in read(write_report(copied)).text
    path.write_bytes(b"\xff" * 40)
    assert "Single answers cannot be shown" in read(write_report(copied)).text


def test_pictures_that_are_gone_or_others_are_not_shown(copied, finished):
    config = yaml.safe_load((copied / "config.yaml").read_text())
    with pytest.raises(UserError, match="other pictures now"):
        pictures(RunDir(copied), {**config, "splits": {"warm": "0" * 64}}, "warm", [0], 32)
    config["scenario"]["tasks"][0]["source"]["root"] = "/nowhere"
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    page = read(write_report(copied))
    assert "The pictures themselves cannot be shown" in page.text and not page.all("img")
    assert page.tables["Confusions"]


def test_a_run_that_goes_on_is_reported_as_far_as_it_is(copied, drawn):
    results = json.loads((copied / "results.json").read_text())
    rows = results["accuracy"][:2]
    results |= {"status": "running", "accuracy": rows, "tasks_detail": results["tasks_detail"][:1]}
    results |= {"zero_shot": {"colours": results["zero_shot"]["colours"][:2]}, **metrics.so_far(rows)}
    (copied / "results.json").write_text(json.dumps({k: None if v != v else v for k, v in results.items()}))
    page = read(write_report(copied))
    assert "This run is not finished: 1 of 2 tasks are done, and it may be going on." in page.text
    assert "not defined: it needs two tasks" in page.text and len(page.tables["Accuracy matrix"]) == 3
    results |= {
        "accuracy": rows[:1],
        "tasks_detail": [],
        "zero_shot": {"colours": [0.5]},
        **metrics.so_far(rows[:1]),
    }
    (copied / "results.json").write_text(json.dumps({k: None if v != v else v for k, v in results.items()}))
    assert "not defined: no task is finished yet" in read(write_report(copied)).text
    (copied / "results.json").unlink()
    assert "Nothing has been measured yet" in read(write_report(copied)).text


def test_what_is_not_defined_says_why(copied, drawn):
    results = json.loads((copied / "results.json").read_text())
    none = dict.fromkeys(("transfer", "average", "last", "forgetting", "bwt"))
    unmeasured = results | none | {"accuracy": [[None] * 2] * 3, "zero_shot": {"colours": [None] * 3}}
    (copied / "results.json").write_text(json.dumps(unmeasured | {"retention": {"colours": None}}))
    page = read(write_report(copied))
    assert page.text.count("not defined: nothing was measured") == 6
    alone = [[0.5, 0.5], [0.75, None], [None, 0.875]]
    (copied / "results.json").write_text(json.dumps(results | none | {"accuracy": alone, "last": 0.8125} | {
        "independent": True}))  # fmt: skip
    page = read(write_report(copied))
    assert page.text.count("every task has a model of its own") == 4
    assert page.values("What was learned") == [[0.5, 0.75, None, 0.25], [0.5, 0.875, None, 0.375]]
    without = results | {"zero_shot_sets": [], "zero_shot": {}, "retention": {}}
    (copied / "results.json").write_text(json.dumps(without))
    assert "the scenario has no zero-shot set" in read(write_report(copied)).text
