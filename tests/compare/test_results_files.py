"""Published results: a table without a run, files that are checked, and the leaderboard made of them."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders.captions import painted
from builders.commands import cli
from builders.places import PACKAGE, ROOT
from builders.published import asked, published
from cl_complora import metrics
from cl_complora.compare import leaderboard as rows_of
from cl_complora.compare import publishing, results_files
from cl_complora.compare.leaderboard import leaderboard, scenarios
from cl_complora.compare.publishing import publish, refuse_other_streams
from cl_complora.compare.results_files import Identities, is_current, place, read_entries, read_entry
from cl_complora.compare.study import compare
from cl_complora.compare.trials import trial
from cl_complora.compare.weight_files import weights_known_by
from cl_complora.config import load_scenario
from cl_complora.errors import UserError
from cl_complora.files import finite
from cl_complora.report.comparison.saving import markdown as table_of
from cl_complora.report.leaderboard import leaderboard_page, markdown


def test_a_table_is_made_of_files_without_a_run(tmp_path, tiny_scenario, methods, ran):
    found = published(tiny_scenario, methods, tmp_path)
    assert len(ran) == 2 * (2 + 2)
    ran.clear()
    again = compare(asked(tiny_scenario, methods), results=tmp_path)
    assert not ran
    assert table_of(again.content()) == table_of(found.content())
    assert again.methods[0].differences == found.methods[0].differences
    assert again.methods[0].differences["retention"].test == "flips by image"  # answers are published too
    # Without one method's file that method alone is run, and its file comes out the same.
    path = place(tmp_path, "tiny", "quick")
    before = path.read_bytes()
    path.unlink()
    published(tiny_scenario, methods, tmp_path)
    assert {label.split(" ")[0] for label in ran} == {methods[0]} and path.read_bytes() == before


def test_other_settings_shots_or_images_are_run(tmp_path, tiny_scenario, methods, ran):
    published(tiny_scenario, methods, tmp_path)
    ran.clear()
    request = asked(tiny_scenario, methods)
    compare(replace(request, strategy_settings=("training.steps=5",)), results=tmp_path)
    assert len(ran) == 8
    ran.clear()
    compare(replace(request, scenario_settings=("shots=2",)), results=tmp_path)
    assert len(ran) == 8


def test_images_of_several_classes_are_part_of_a_trial(tmp_path, tiny_scenario, methods):
    """Other labels of a multi-label set are other numbers."""
    painted(tmp_path)
    more = "\nmulti_label:\n  - {name: several, source: {kind: multi-label, file: labels.jsonl}}\n"
    (tmp_path / "scenario.yaml").write_text(tiny_scenario.read_text() + more)
    found = set()
    for labels in (["warm"], ["warm", "red"]):
        rows = [{"image": "red.png", "labels": labels}, {"image": "blue.png", "labels": ["cold"]}]
        (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        located = load_scenario(str(tmp_path / "scenario.yaml"))
        found.add(Identities().of(trial(methods[0], (), 0, located)))
    assert len(found) == 2


def test_seeds_come_together_in_a_file(tmp_path, tiny_scenario, methods, ran):
    published(tiny_scenario, methods, tmp_path, seeds=(0,))
    published(tiny_scenario, methods, tmp_path, seeds=(0, 1))
    assert len(ran) == 2 * (2 + 1) + 2
    entry = read_entry(place(tmp_path, "tiny", "quick"))
    assert entry.asked.seeds == [0, 1] and sorted(entry.tests()) == [0, 1]
    assert [len(outcomes) for outcomes in entry.curve().values()] == [1, 1]


def changed(content: dict, path: tuple, value) -> dict:
    part = content
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("version",), 2, "version"),
        (("trials", 0, "seed"), "0", "seed"),
        (("trials", 0, "identity"), "../x", "identity"),
        (("trials", 0, "results"), None, "neither results nor an error"),
        (("trials", 0, "results"), {"last": 0.5}, "lacks what it is chosen by"),
        (("trials", -1, "results", "accuracy"), [[0.5]], "accuracy"),
        (("trials", -1, "results", "accuracy", 1, 0), None, "accuracy: must be numbers"),
        (("trials", -1, "results", "accuracy", 0, 1), float("inf"), "damaged"),
        (("trials", -1, "results", "accuracy", 2, 1), 2.5, "accuracy: must lie between 0 and 1"),
        (("trials", -1, "results", "accuracy", 2, 1), -0.5, "accuracy: must lie between 0 and 1"),
        (("trials", -1, "results", "zero_shot", "colours", 0), 1.5, "zero_shot: must lie between 0 and 1"),
        (("trials", -1, "results", "last"), 0.123, "last: is not what its matrix gives"),
        (("trials", -1, "results", "forgetting"), None, "forgetting: is not what its matrix gives"),
        (
            ("trials", -1, "results", "retention", "colours"),
            90.0,
            "retention.colours: is not what its",
        ),
        (
            ("trials", -1, "results", "tasks_detail", 0, "train_seconds"),
            -1.0,
            "train_seconds: must be a",
        ),
        (("trials", -1, "results", "tasks_detail"), [{}, {}], "tasks_detail"),
        (("trials", -1, "results", "tasks_detail"), [], "tasks_detail"),
        (("trials", -1, "results", "tasks_detail", 0, "carried_bytes"), None, "carried_bytes: must be a"),
        (("trials", -1, "results", "tasks_detail", 1, "steps"), True, "steps: Input should be a valid num"),
        (("trials", -1, "results", "status"), "running", "not a row of accuracy for the start"),
        (("trials", -1, "results"), None, "neither results nor an error"),
        (("trials", -1, "error"), "killed", "a test holds an error"),
        (("trials", -1, "updates"), None, "updates: must have all figures"),
        (("trials", -1, "updates"), [], "updates: must have all figures"),
        (("trials", -1, "updates", 0, "norm"), None, "updates: must have all figures"),
        (("trials", -1, "updates", 0), {"norm": 1.0}, "updates: must have all figures"),
        (("trials", -1, "results", "tasks"), ["warm", "other"], "tasks: is not of the same in every test"),
        (("trials", -1, "results", "retention"), {}, "retention: is not of the same in every test"),
        (("chosen",), {"optimiser.lr": 123.0}, "none is a test with the settings that were chosen"),
        (("trials", 0, "results", "last"), None, "last: "),
        (("trials", 0, "results", "retention"), {"colours": None}, "retention.colours: "),
        (("trials", 0, "results", "zero_shot"), {"colours": []}, "zero_shot.colours: "),
        (("trials", -1, "kept", "retention", "colours", "bits"), "A", "base64"),
        (("trials", -1, "kept", "retention", "colours", "count"), 99, "fewer bits"),
        (("surprise",), 1, "surprise"),
        (("scenario",), "other", "on 'other'"),
        (("scenario",), "<b>tiny", "scenario: "),
        (("method",), "slow\x1b[2J\n| a |", "method: "),
    ],
)
def test_a_damaged_file_is_named(tmp_path, tiny_scenario, methods, ran, path, value, told):
    published(tiny_scenario, (methods[1],), tmp_path)
    file = place(tmp_path, "tiny", "slow")
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    with pytest.raises(UserError) as error:
        read_entries(tmp_path, "tiny")
    assert str(file) in str(error.value) and told in str(error.value)


def test_a_trial_must_not_stand_twice(tmp_path, tiny_scenario, methods, ran):
    published(tiny_scenario, (methods[1],), tmp_path)
    file = place(tmp_path, "tiny", "slow")
    content = json.loads(file.read_text())
    content["trials"].append(content["trials"][-1])
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="trials: one stands twice"):
        read_entry(file)


def test_a_row_of_accuracy_must_not_be_missing(tmp_path, tiny_scenario, methods, ran):
    """With as many numbers of every zero-shot set, which the form alone takes for a run that goes on."""
    published(tiny_scenario, (methods[1],), tmp_path)
    file = place(tmp_path, "tiny", "slow")
    content = json.loads(file.read_text())
    results = content["trials"][-1]["results"]
    for values in (results["accuracy"], *results["zero_shot"].values()):
        values.pop()
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="not a row of accuracy for the start and for every task"):
        read_entry(file)


def test_a_misspelt_reference_is_refused(tmp_path, tiny_scenario, methods, ran, monkeypatch, capsys):
    published(tiny_scenario, methods, tmp_path)
    told = "--reference slwo: has no results in .*, which has those of quick, slow; did you mean 'slow'"
    with pytest.raises(UserError, match=told):
        leaderboard(tmp_path, "tiny", "slwo")
    assert leaderboard(tmp_path, "tiny")["reference"] is None  # nobody asked for it
    # Of several scenarios one may lack it, which is told.
    (tmp_path / "other").mkdir()
    place(tmp_path, "tiny", "quick").rename(place(tmp_path, "other", "quick"))
    assert leaderboard(tmp_path, "tiny", "quick")["reference"] is None
    code, out, err = cli(
        monkeypatch, capsys, *(f"leaderboard {tmp_path} --scenario tiny --reference quick".split())
    )
    assert code == 0 and "tiny" in out and "tiny: no current results of quick, so no differences to it" in err


def test_the_leaderboard_is_by_last_and_marks_what_is_stale(
    tmp_path, tiny_scenario, methods, ran, monkeypatch
):
    published(tiny_scenario, methods, tmp_path)
    path = place(tmp_path, "tiny", "quick")
    content = json.loads(path.read_text())
    for run in content["trials"]:
        if not run["validation"]:
            run["results"]["accuracy"][-1] = [1.0, 1.0]
            run["results"] |= metrics.summarize(run["results"]["accuracy"])
    path.write_text(json.dumps(content))
    board = leaderboard(tmp_path, "tiny", "slow")
    assert [row["name"] for row in board["rows"]] == ["quick", "slow"] and board["best"] == "quick"
    assert board["rows"][0]["against_reference"]["last"]["mean"] > 0
    assert board["missing"] == []  # a stream of one's own was not made to have what ships
    assert [row["front"] for row in board["rows"]] == [True, False]
    said = markdown([board])
    assert said.index("| quick ◆ |") < said.index("| slow |") and "stale" not in said
    page = leaderboard_page([board]).html()
    assert "<select data-table" in page and "as shipped" not in page and "lr=0.005" in page
    monkeypatch.setattr(rows_of, "is_current", lambda entry: entry.method != "quick")
    board = leaderboard(tmp_path, "tiny", "slow")
    assert [row["name"] for row in board["rows"]] == ["slow", "quick"] and board["best"] == "slow"
    assert "| quick (stale) |" in markdown([board]) and not board["rows"][1]["front"]


def test_what_the_repository_holds_is_current_and_makes_the_page(monkeypatch):
    """Every file is what its name says; a YAML that changed makes its row stale until it is run again."""
    folder = ROOT / "results"
    names = scenarios(folder)
    entries = {name: read_entries(folder, name) for name in names}
    # Files and scenarios are read once: a second time would tell nothing more.
    loaded = functools.cache(load_scenario)
    monkeypatch.setattr(results_files, "load_scenario", lambda name, settings: loaded(name, tuple(settings)))
    monkeypatch.setattr(rows_of, "read_entries", lambda folder, name: entries[name])
    every = [entry for name in names for entry in entries[name]]
    assert len(every) >= 15
    for entry in every:
        assert np.isfinite([outcome.results["last"] for outcome in entry.tests().values()]).all()
    page = markdown([leaderboard(folder, name) for name in names])
    assert page == (ROOT / "docs" / "leaderboard.md").read_text(encoding="utf-8"), (
        "write it again: cl-complora leaderboard --markdown docs/leaderboard.md"
    )


def test_another_fingerprint_is_stale(monkeypatch):
    entry = read_entry(ROOT / "results" / "embedded" / "lora.json")
    assert is_current(entry)
    for key in ("scenario", "strategy", "weights"):
        other = entry.fingerprint.model_copy(update={key: "0" * 64})
        assert not is_current(entry.model_copy(update={"fingerprint": other}))
    # Whether weights that are not at hand have changed cannot be told.
    monkeypatch.setattr(results_files, "weight_file", lambda scenario, folder: None)
    assert is_current(entry.model_copy(update={"fingerprint": other}))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["leaderboard", "."], "holds no results"),
        (["compare", "tiny", "--results", ".", "--publish", "."], "give one of the two"),
    ],
)
def test_what_cannot_work_is_told(tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    code, _, err = cli(monkeypatch, capsys, *words)
    assert code == 2 and told in err and not list(tmp_path.iterdir())


def test_an_entry_says_whether_any_of_the_package_was_changed(monkeypatch):
    asked = []

    def answered(folder: Path, *words: str) -> str:
        asked.append((folder, words[-1]))
        return "abc\n" if words[-1] == "HEAD" else " M cl_complora/engine/updates/complora.py\n"

    monkeypatch.setattr(publishing, "_git", answered)
    assert publishing._software() | {"cl_complora": ""} == {
        "cl_complora": "",
        "commit": "abc",
        "modified": True,
    }
    assert asked == [(PACKAGE, "HEAD"), (PACKAGE, ".")]


def test_rows_of_another_stream_are_not_compared(tmp_path, tiny_scenario, methods, ran):
    """Sixteen shots among eight: marked, ranked last, without a difference."""
    published(tiny_scenario, methods, tmp_path)
    other = replace(asked(tiny_scenario, methods[:1]), reference="", scenario_settings=("shots=2",))
    with pytest.raises(UserError, match="quick.json was made with other settings of the scenario"):
        refuse_other_streams(other, ["quick"], "tiny", tmp_path)
    refuse_other_streams(asked(tiny_scenario, methods), ["quick", "slow"], "tiny", tmp_path)
    made = publish(compare(other), load_scenario(str(tiny_scenario), ["shots=2"]), tmp_path / "other")
    place(tmp_path, "tiny", "quick").write_bytes(made[0].read_bytes())
    third = place(tmp_path, "tiny", "third")
    content = json.loads(place(tmp_path, "tiny", "slow").read_text())
    third.write_text(json.dumps(content | {"method": "third"}))
    board = leaderboard(tmp_path, "tiny", "slow")
    assert [row["name"] for row in board["rows"]][-1] == "quick"
    rows = {row["name"]: row for row in board["rows"]}
    assert rows["quick"]["stale"] and rows["quick"]["set"] == "shots=2" and not rows["slow"]["stale"]
    assert not rows["quick"]["against_reference"] and not rows["quick"]["against_best"]
    assert rows["third"]["against_reference"] and not rows["third"]["stale"]


def test_entries_of_other_tasks_are_not_compared(tmp_path, tiny_scenario, methods, ran):
    """One of them was changed by hand: its fingerprint still says the same stream."""
    published(tiny_scenario, methods, tmp_path)
    file = place(tmp_path, "tiny", "quick")
    content = json.loads(file.read_text())
    for run in content["trials"]:
        if not run["validation"]:
            results = run["results"]
            results["accuracy"] = [row[:1] for row in results["accuracy"][:2]]
            results["zero_shot"] = {name: values[:2] for name, values in results["zero_shot"].items()}
            results["tasks"], results["tasks_detail"] = results["tasks"][:1], results["tasks_detail"][:1]
            results |= finite(metrics.summarize(results["accuracy"]))
            results["retention"] = {
                n: metrics.retention(values) for n, values in results["zero_shot"].items()
            }
            run["updates"] = run["updates"][:1]
    file.write_text(json.dumps(content))
    rows = {row["name"]: row for row in leaderboard(tmp_path, "tiny", "slow")["rows"]}
    assert "last" not in rows["quick"]["against_reference"]


def test_weights_in_a_folder_are_part_of_a_trial(tmp_path, tiny_scenario, tiny_files):
    config, weights = tiny_files
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "open_clip_config.json").write_bytes(config.read_bytes())
    text = tiny_scenario.read_text()
    found = set()
    for content in (weights.read_bytes(), weights.read_bytes()[:-4] + b"\0\0\0\0"):
        (tmp_path / "m" / "open_clip_model.safetensors").write_bytes(content)
        (tmp_path / "s.yaml").write_text(text)
        located = load_scenario(str(tmp_path / "s.yaml"), [f"model={{name: 'local-dir:{tmp_path / 'm'}'}}"])
        found.add(weights_known_by(located.value, tmp_path))
    assert len(found) == 2


def test_a_board_has_the_name_of_the_scenario_and_not_of_its_folder(tmp_path, tiny_scenario, methods, ran):
    published(tiny_scenario, methods, tmp_path)
    there = place(tmp_path, "my tiny", "quick")
    there.parent.mkdir()
    content = json.loads(place(tmp_path, "tiny", "quick").read_text())
    for run in content["trials"]:
        run["results"] |= {} if run["validation"] else {"scenario": "my tiny"}
    there.write_text(json.dumps(content | {"scenario": "my tiny"}))
    (folder,) = [name for name in rows_of.scenarios(tmp_path) if name != "tiny"]
    assert folder == "my-tiny" and leaderboard(tmp_path, folder, "quick")["scenario"] == "my tiny"
