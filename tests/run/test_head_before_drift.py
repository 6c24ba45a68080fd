"""What was made before ``head.drift`` was there had none, which is not its default."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
import yaml

from builders.interruptions import Said
from cl_complora.compare.results_files import fingerprint, is_current, read_entry
from cl_complora.config import load_scenario, load_strategy
from cl_complora.engine.fitting import fitting
from cl_complora.errors import UserError
from cl_complora.report.reproduce import run_command
from cl_complora.run.stream import run

SHORT = ("training.steps=2", "head.c=[10.0]")
RESULTS = Path(__file__).resolve().parents[2] / "results"


@pytest.mark.parametrize("protocol", ["class-incremental", "task-incremental"])
def test_a_finished_run_of_before_had_no_drift_compensation(tiny_scenario, tmp_path, protocol):
    scenario = load_scenario(str(tiny_scenario), [f"protocol={protocol}"])

    def again(*settings: str) -> Path:
        strategy = load_strategy("complora", [*SHORT, *settings])
        return run(scenario, strategy, out=tmp_path, evaluate=False, analysis=False).folder

    config_file = again() / "config.yaml"
    config = yaml.safe_load(config_file.read_text())
    del config["strategy"]["head"]["drift"]
    config_file.write_text(yaml.safe_dump(config, sort_keys=False))
    words = shlex.split(run_command(config))
    if protocol == "task-incremental":  # where it would have had nothing to do
        again()
        assert not any("drift" in word for word in words)
        return
    assert "strategy.head.drift=null" in words
    again("head.drift=null")
    with pytest.raises(UserError, match=r"head\.drift"):
        again()


def test_an_entry_of_before_is_stale_on_a_stream_that_compensates():
    entry = read_entry(RESULTS / "embedded-classes" / "complora.json")
    apart = load_scenario("embedded")
    before = fingerprint(apart.value, load_strategy("complora").value, apart.folder).strategy
    assert is_current(entry)
    fingerprinted = entry.fingerprint.model_copy(update={"strategy": before})
    assert not is_current(entry.model_copy(update={"fingerprint": fingerprinted}))
    assert is_current(read_entry(RESULTS / "embedded" / "complora.json"))


def test_features_that_are_no_numbers_are_told(tiny_scenario, tmp_path, monkeypatch):
    shots_of = fitting.shots_of

    def broken(model, task, seed):
        shots = shots_of(model, task, seed)
        shots.features[0, 0] = torch.nan
        return shots

    monkeypatch.setattr(fitting, "shots_of", broken)
    with pytest.raises(UserError, match=r"features are not finite.* lower optimiser\.lr"):
        run(load_scenario(str(tiny_scenario)), load_strategy("complora", SHORT), out=tmp_path)


def test_drift_of_an_image_tower_that_stands_still_is_noted(tiny_scenario, tmp_path):
    scenario = load_scenario(str(tiny_scenario), ["protocol=class-incremental"])
    still = [*SHORT, "adapter.towers=[text]", "regularisers=[]"]
    for drift, told in (["head.drift=0.5"], 1), (["head.drift=null"], 0), ([], 0):
        said, strategy = Said(), load_strategy("complora+linear-probe+lwf", [*still, *drift])
        run(scenario, strategy, out=tmp_path / "-".join(drift), progress=said, evaluate=False, analysis=False)
        note = "note: head.drift has no effect where nothing of the image tower is trained"
        assert said.lines.count(note) == told


@pytest.mark.parametrize("value", ["1e-17", "0", "-1"])
def test_a_map_of_rounding_errors_is_refused(value):
    with pytest.raises(UserError, match=r"head\.drift=.*at least 1e-09"):
        load_strategy("complora", [f"head.drift={value}"])
