"""What a strategy file says of itself changes no run: one that was made before goes on."""

from __future__ import annotations

import shutil

import yaml

from cl_complora.config import load_scenario, load_strategy
from cl_complora.progress import Quiet
from cl_complora.report.reproduce import changed_settings
from cl_complora.run.stream import run

ABOUT = 'about: {kind: complora, source: "Somebody; some/code 1234567", checked: none}\n'


class NothingTrains(Quiet):
    def task(self, index, total, name, steps):
        raise AssertionError(f"task {index} is trained again")


def test_a_run_goes_on_with_a_file_that_now_says_what_it_is(tmp_path, tiny_scenario, tiny_strategy, tiny_run):
    out = tmp_path / "out"
    shutil.copytree(tiny_run.folder.parents[2], out)
    file = tmp_path / tiny_strategy.name
    file.write_text(tiny_strategy.read_text(encoding="utf-8") + ABOUT, encoding="utf-8")
    strategy = load_strategy(str(file))
    assert strategy.value.about is not None
    again = run(load_scenario(str(tiny_scenario)), strategy, out=out, progress=NothingTrains())
    assert again.results["accuracy"] == tiny_run.results["accuracy"]
    config = yaml.safe_load((again.folder / "config.yaml").read_text(encoding="utf-8"))
    assert "about" not in config["strategy"]
    # Nor does the report take it for a changed setting.
    config["files"]["strategy"] = str(file)
    assert changed_settings(config) == []
