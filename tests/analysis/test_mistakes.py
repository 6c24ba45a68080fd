"""New mistakes: what was right and is wrong now, counted as the run measured it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from builders.reported import forgetful_run
from cl_complora.analysis.mistakes import changes, label_space
from cl_complora.store.folder import RunDir


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory) -> Path:
    return forgetful_run(tiny_run.folder, tmp_path_factory.mktemp("runs") / "seed0")


def test_changes_count_what_the_run_measured(finished):
    config, results = (
        yaml.safe_load((finished / name).read_text()) for name in ("config.yaml", "results.json")
    )
    folder = RunDir(finished)
    for column, name in enumerate(["warm", "cold"]):
        for state in (1, 2):
            found = changes(folder, config, name, 0, state)
            assert found.right_now / found.images == pytest.approx(results["accuracy"][state][column])
    held = changes(folder, config, "colours", 0, 2)
    assert held.right_now / held.images == pytest.approx(results["zero_shot"]["colours"][2])
    before, now = (sum(getattr(c, key) for c in held.confusions) for key in ("earlier", "now"))
    assert (held.images - before, held.images - now) == (held.right_earlier, held.right_now)


def test_label_spaces_are_those_of_the_protocol(finished):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert label_space(RunDir(finished), config, "cold") == ["green", "blue"]
    config["scenario"]["protocol"] = "class-incremental"
    assert label_space(RunDir(finished), config, "cold") == ["red", "yellow", "green", "blue"]
    assert label_space(RunDir(finished), config, "colours") == ["blue", "green", "red", "yellow"]
