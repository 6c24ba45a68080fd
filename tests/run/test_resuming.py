"""Where an interrupted run goes on, and that nothing computed before that place is mixed with what is not."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from builders.interruptions import Said, Stop, StopAfter, same_bits
from builders.runs import without_timings
from cl_complora.config import load_scenario, load_strategy
from cl_complora.run.stream import run
from cl_complora.store.folder import RunDir
from cl_complora.store.tensors import with_checksum


def go(scenario, out, strategy="lora+ewc", settings=(), **options):
    quick = load_strategy(strategy, ["training.steps=3", "training.batch_size=4", *settings])
    return run(load_scenario(str(scenario)), quick, out=out, analysis=False, **options)


@pytest.fixture
def ended(tmp_path, tiny_scenario):
    """A finished run of two tasks."""
    return go(tiny_scenario, tmp_path)


@pytest.fixture(scope="module")
def three(tmp_path_factory, tiny_scenario):
    """The scenario with a third task."""
    source = yaml.safe_load(tiny_scenario.read_text())
    source["tasks"].append(source["tasks"][0] | {"name": "more", "classes": ["red", "blue"]})
    path = tmp_path_factory.mktemp("three") / "three.yaml"
    path.write_text(yaml.safe_dump(source))
    return path


def of_another_machine(folder: RunDir, **content) -> None:
    config = yaml.safe_load(folder.config.read_text())
    config["software"]["torch"] = "2.0.0"
    folder.config.write_text(yaml.safe_dump(config | content))


def told_elsewhere(result) -> list[str]:
    return [step["from_task"] for step in result.results["elsewhere"]]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_records_behind_a_damaged_one_are_made_again_whatever_happens(
    ended, tmp_path, tiny_scenario, elsewhere
):
    folder = RunDir(ended.folder)
    folder.record(0, "warm").write_text("{")
    inside = folder.checkpoint(1, "cold", 2, "of another process")
    inside.parent.mkdir(parents=True)
    inside.touch()
    if elsewhere:
        of_another_machine(folder)
    with pytest.raises(Stop):
        go(tiny_scenario, tmp_path, elsewhere=elsewhere, progress=StopAfter(1))
    assert folder.record(0, "warm").exists()
    assert not folder.record(1, "cold").exists() and not inside.exists()
    again = go(tiny_scenario, tmp_path)
    assert again.reused == 1 and again.results.get("elsewhere", []) == (
        [{"from_task": "warm", "changed": {"torch": ["2.0.0", again.results["software"]["torch"]]}}]
        if elsewhere
        else []
    )
    again.results.pop("elsewhere", None)
    assert without_timings(again.results) == without_timings(ended.results)


def test_the_first_task_that_is_made_elsewhere_is_named(ended, tmp_path, tiny_scenario):
    """What the first task left is damaged as well, so that it is learned again."""
    folder = RunDir(ended.folder)
    folder.record(1, "cold").unlink()
    for state in (folder.root / "state").glob("*.safetensors"):
        state.write_bytes(b"")
    of_another_machine(folder)
    said = Said()
    again = go(tiny_scenario, tmp_path, elsewhere=True, progress=said)
    assert again.reused == 0 and told_elsewhere(again) == ["warm"]
    assert "what 'warm' left for later tasks is damaged or gone; going on from before it" in said.lines


def test_a_run_that_goes_further_back_than_where_it_moved_says_so(ended, tmp_path, tiny_scenario):
    folder = RunDir(ended.folder)
    config = yaml.safe_load(folder.config.read_text())
    moved = {"from_task": "cold", "changed": {"device": ["cuda", "cpu"]}}
    folder.config.write_text(yaml.safe_dump(config | {"elsewhere": [moved]}))
    folder.record(0, "warm").write_text("{")
    again = go(tiny_scenario, tmp_path)
    assert again.results["elsewhere"] == [moved | {"from_task": "warm"}]
    folder.record(1, "cold").write_text("{")
    assert told_elsewhere(go(tiny_scenario, tmp_path)) == ["warm"]


def test_a_finished_run_without_states_and_results_is_not_trained_again(ended, tmp_path, tiny_scenario):
    folder = RunDir(ended.folder)
    shutil.rmtree(folder.root / "state")
    folder.results.unlink()
    of_another_machine(folder, device="cuda", gpu="NVIDIA A100")
    before = {path: path.stat().st_mtime_ns for path in folder.root.glob("[dt]*s/*")}  # deltas, tasks
    again = go(tiny_scenario, tmp_path)
    assert again.reused == 2 and json.loads(folder.results.read_text())["status"] == "done"
    assert again.results["device"] == "cuda (NVIDIA A100)" and "elsewhere" not in again.results
    assert again.results["accuracy"] == ended.results["accuracy"]
    assert before == {path: path.stat().st_mtime_ns for path in before}


NOTHING_CARRIED = [
    ("lora", ()),
    ("complora-plain", ("regularisers=[{kind: l2-init, strength: 0.1, to: previous}]",)),
    ("tip-adapter", ()),
]


@pytest.mark.parametrize(("strategy", "settings"), NOTHING_CARRIED, ids=[s for s, _ in NOTHING_CARRIED])
def test_where_nothing_is_carried_on_a_run_goes_on_from_any_task(tmp_path, three, strategy, settings):
    whole = go(three, tmp_path / "whole", strategy, settings)
    parts = go(three, tmp_path / "parts", strategy, settings)
    folder = RunDir(parts.folder)
    folder.record(1, "cold").write_text("{")
    again = go(three, tmp_path / "parts", strategy, settings)
    assert again.reused == 1 and not list(folder.root.glob("state/*.safetensors"))
    assert without_timings(again.results) == without_timings(whole.results)
    assert same_bits(parts.folder, whole.folder)


def test_a_run_with_empty_states_of_an_earlier_version_goes_on(tmp_path, three):
    whole = go(three, tmp_path / "whole", "lora")
    folder = RunDir(go(three, tmp_path / "parts", "lora").folder)
    for index, name in ((1, "cold"), (2, "more")):
        for plugin in range(2):
            path = folder.state(index, name, plugin)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(with_checksum({}, "state"))
    folder.record(2, "more").unlink()
    again = go(three, tmp_path / "parts", "lora")
    assert again.reused == 2 and same_bits(folder.root, whole.folder)
    assert without_timings(again.results) == without_timings(whole.results)
