"""A run that was begun on another device, GPU or versions: refused with a reason, or gone on with."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml

from builders.commands import cli
from builders.runs import deltas_of, without_timings
from cl_complora.report.run import page
from cl_complora.store import provenance
from cl_complora.store.elsewhere import take_places, told
from cl_complora.store.folder import RunDir
from cl_complora.store.loaded_run import load_run


@pytest.fixture
def begun(tiny_run, tmp_path):
    """A copy of a run of which the second task is missing; its config.yaml."""
    shutil.copytree(tiny_run.folder.parents[2], tmp_path / "runs")
    folder = tmp_path / "runs" / tiny_run.folder.relative_to(tiny_run.folder.parents[2])
    for part in ("tasks", "deltas"):
        for file in (folder / part).glob("002-*"):
            file.unlink()
    return folder / "config.yaml"


def change(config, **content):
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | content))


def versions(**others):
    return {name: text for name, text in provenance.software().items() if name != "numpy"} | others


@pytest.fixture
def go(monkeypatch, capsys, tmp_path, tiny_scenario, tiny_strategy):
    monkeypatch.chdir(tmp_path)
    words = ("run", tiny_scenario, "-s", tiny_strategy, "--device", "cpu")
    return lambda *more: cli(monkeypatch, capsys, *words, *more)


def test_what_will_differ_is_told_and_nothing_is_written(begun, go):
    change(begun, software=versions(torch="2.0.0"), device="cuda", gpu="NVIDIA A100")
    before = {path: path.read_bytes() for path in begun.parent.rglob("*") if path.is_file()}
    code, _, said = go()
    assert code == 2 and said.count("error:") == 1
    for part in (
        f"torch 2.0.0 → {versions()['torch']}",
        "device cuda → cpu",
        "bits",
        "--elsewhere",
        "--fresh",
    ):
        assert part in said
    assert {path: path.read_bytes() for path in begun.parent.rglob("*") if path.is_file()} == before


def test_settings_that_an_earlier_version_did_not_know_are_no_other_settings(begun, go):
    content = yaml.safe_load(begun.read_text())
    content["strategy"]["training"].pop("on_nan")
    begun.write_text(yaml.safe_dump(content | {"software": versions(cl_complora="0.0.9")}))
    code, _, said = go()
    assert code == 2 and "began elsewhere (cl_complora 0.0.9" in said and "on_nan" not in said
    assert go("--elsewhere")[0] == 0


def test_it_goes_on_elsewhere_and_says_from_which_task_on(begun, go, tiny_run):
    change(begun, software=versions(torch="2.0.0"))
    code, out, said = go("--elsewhere")
    assert code == 0 and "going on elsewhere: torch 2.0.0" in out + said
    results = json.loads((begun.parent / "results.json").read_text())
    step = {"from_task": "cold", "changed": {"torch": ["2.0.0", versions()["torch"]]}}
    assert results["elsewhere"] == [step]
    assert yaml.safe_load(begun.read_text())["elsewhere"] == [step]
    results.pop("elsewhere")
    assert without_timings(results) == without_timings(tiny_run.results)  # it was the same version, after all
    assert deltas_of(begun.parent).keys() == deltas_of(tiny_run.folder).keys()
    # It is no question any more, and a second place is told beside the first.
    assert "found finished" in go()[1] and "found finished" in go("--elsewhere")[1]
    for part in ("tasks", "deltas"):
        for file in (begun.parent / part).glob("002-*"):
            file.unlink()
    assert go()[0] == 0
    assert json.loads((begun.parent / "results.json").read_text())["elsewhere"] == [step]
    assert "Gone on elsewhere from cold on" in str(page.run_page(load_run(RunDir(begun.parent))))


def test_a_finished_run_is_read_anywhere(begun, go, tiny_run):
    shutil.copytree(tiny_run.folder, begun.parent, dirs_exist_ok=True)
    change(begun, software=versions(torch="2.0.0"), device="cuda", gpu="NVIDIA A100", threads=64)
    code, out, said = go()
    assert code == 0 and "found finished" in out, said


def test_settings_are_told_before_places(begun, go):
    change(begun, software=versions(torch="2.0.0"))
    code, _, said = go("--set", "optimiser.lr=0.125", "--elsewhere")
    assert code == 2 and "strategy.optimiser.lr = 0.005, now it is 0.125" in said


def test_the_name_of_the_card_is_part_of_what_a_run_was_made_with(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA of {device}")
    assert provenance.gpu_of("cuda:1") == "NVIDIA of cuda:1" and provenance.gpu_of("cpu") is None


def test_cards_are_compared_where_both_are_known():
    card, other, unknown = ({"device": "cuda", **gpu} for gpu in ({"gpu": "H100"}, {"gpu": "A100"}, {}))
    assert told(take_places(dict(card), dict(other))) == "gpu H100 → A100"
    assert take_places(dict(card), dict(card)) == take_places(dict(unknown), dict(card)) == {}
    assert set(take_places(dict(card), {"device": "cpu"})) == {"device"}


@pytest.mark.parametrize("left", ["whole", "damaged", "gone"])
def test_results_that_are_written_again_say_where_the_run_was_made(begun, go, tiny_run, left):
    shutil.copytree(tiny_run.folder, begun.parent, dirs_exist_ok=True)
    other = versions(torch="2.0.0")
    change(begun, software=other, device="cuda", gpu="NVIDIA A100")
    file = begun.parent / "results.json"
    stored = json.loads(file.read_text()) | {
        "software": other | {"numpy": "1.0"},
        "device": "cuda:1 (NVIDIA A100)",
    }
    file.write_text(json.dumps(stored | {"last": 0.125}))
    if left == "damaged":
        file.write_text("{")
    elif left == "gone":
        file.unlink()
    assert go()[0] == 0
    told = json.loads(file.read_text())
    assert told["last"] == tiny_run.results["last"] and told["status"] == "done"
    expected = (
        ("cuda:1 (NVIDIA A100)", stored["software"]) if left == "whole" else ("cuda (NVIDIA A100)", other)
    )
    assert (told["device"], told["software"]) == expected


def test_what_is_learned_again_is_made_here(begun, go):
    """Of a finished run only the last record is damaged: it is learned again, and on this device."""
    change(begun, device="cuda", gpu="NVIDIA A100")
    assert go()[0] == 2
    assert go("--elsewhere")[0] == 0
    results = json.loads((begun.parent / "results.json").read_text())
    assert results["device"] == "cpu" and results["elsewhere"][0]["from_task"] == "cold"
