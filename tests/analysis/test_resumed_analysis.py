"""What an interrupted run leaves of its analysis: of independent tasks too, and where earlier files are
damaged."""

from __future__ import annotations

import json
import shutil

import pytest

from builders.interruptions import AfterFirstTask, Said, Stop
from builders.places import LONG
from builders.runs import without_timings
from cl_complora.analysis.geometry import Spectrum
from cl_complora.clip.model import load_clip
from cl_complora.clip.slots import open_slots
from cl_complora.config import load_scenario, load_strategy
from cl_complora.run.stream import run


def go(tiny_scenario, out, strategy="complora", settings=(), **options):
    quick = load_strategy(strategy, ["training.steps=3", "training.batch_size=4"])
    return run(load_scenario(str(tiny_scenario), list(settings)), quick, out=out, **options)


def analyses(folder) -> dict[str, dict]:
    found = {path.name: json.loads(path.read_text()) for path in sorted((folder / "analysis").iterdir())}
    return {name: {key: one[key] for key in ("matrices", "cka")} for name, one in found.items()}


@pytest.mark.parametrize("strategy", ["complora", "finetune"])
def test_independent_tasks_are_compared_with_the_pretrained_weights(tmp_path, tiny_scenario, strategy):
    alone = ["independent=true"]
    whole = analyses(go(tiny_scenario, tmp_path / "whole", strategy, alone).folder)
    loaded = load_clip(load_scenario(str(tiny_scenario)).value.model, tiny_scenario.parent)
    slots = {slot.name: slot for slot in open_slots(loaded.model)}
    second = whole["002-cold.json"]["matrices"]
    assert second and all("warm" in figures["overlap_with"] for figures in second.values())
    for name, figures in second.items():
        assert figures["spectrum_before"] == Spectrum.of(slots[name].weight).points()
    with pytest.raises(Stop):
        go(tiny_scenario, tmp_path / "parts", strategy, alone, progress=AfterFirstTask())
    assert analyses(go(tiny_scenario, tmp_path / "parts", strategy, alone).folder) == whole


@pytest.fixture(scope="module")
def whole_and_stopped(tmp_path_factory, tiny_scenario):
    """A run, and the folder of runs in which another was stopped after its first task; who goes on takes a
    copy."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.raises(Stop):
        go(tiny_scenario, out / "parts", "lora", progress=AfterFirstTask())
    return go(tiny_scenario, out / "whole", "lora"), out / "parts"


# What is no tensor file is not read further, whatever else it is.
VIEWS = [("features", b""), *(("analysis", content) for content in (b"", b"{", b"[]"))]
VIEWS += [("features", b"{"), ("features", b"[]")] if LONG else []


def test_changed_bytes_of_features_are_not_compared_with(tmp_path, tiny_scenario, whole_and_stopped):
    whole, stopped = whole_and_stopped
    shutil.copytree(stopped, tmp_path / "parts")
    (file,) = (tmp_path / "parts").rglob("features/001-warm.*")
    content = bytearray(file.read_bytes())
    content[-64:-4] = bytes(byte ^ 1 for byte in content[-64:-4])
    file.write_bytes(content)
    said = Said()
    parts = go(tiny_scenario, tmp_path / "parts", "lora", progress=said)
    assert [line for line in said.lines if str(file) in line and "no later task is compared" in line]
    found = json.loads((parts.folder / "analysis/002-cold.json").read_text())
    assert found["cka"] == {} and analyses(whole.folder)["002-cold.json"]["cka"].keys() == {"warm"}


@pytest.mark.parametrize(("left", "content"), VIEWS)
def test_a_damaged_view_does_not_stop_a_resume(tmp_path, tiny_scenario, whole_and_stopped, left, content):
    whole, stopped = whole_and_stopped
    shutil.copytree(stopped, tmp_path / "parts")
    (file,) = (tmp_path / "parts").rglob(f"{left}/001-warm.*")
    file.write_bytes(content)
    said = Said()
    parts = go(tiny_scenario, tmp_path / "parts", "lora", progress=said)
    assert without_timings(parts.results) == without_timings(whole.results)
    assert [line for line in said.lines if str(file) in line and "damaged" in line]
    same = analyses(whole.folder)["002-cold.json"]
    assert json.loads((parts.folder / "analysis/002-cold.json").read_text())["matrices"] == same["matrices"]
