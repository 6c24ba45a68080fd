"""``evaluation.precision`` of a scenario: what is measured in it, what results.json and the report say."""

from __future__ import annotations

import json
import shutil

import torch

from builders.commands import cli
from builders.runs import deltas_of
from cl_complora.analysis.paired import paired_changes
from cl_complora.config import load_scenario, load_strategy
from cl_complora.report.elements import Notice
from cl_complora.report.run.summary import summary
from cl_complora.run.stream import run
from cl_complora.store.folder import RunDir
from cl_complora.store.loaded_run import load_run


def test_a_run_in_bf16_says_what_that_changes(tiny_scenario, tiny_strategy, tiny_run, tmp_path):
    located = load_scenario(str(tiny_scenario), ["evaluation.precision=bf16"])
    strategy = load_strategy(str(tiny_strategy))
    found = run(located, strategy, out=tmp_path)
    evaluation = found.results["evaluation"]
    assert evaluation["precision"] == "bf16"
    changed = evaluation["changed_answers"]
    assert (changed["set"], changed["images"]) == ("colours", 8) and 0 <= changed["share"] <= 1
    # Training knows nothing of it.
    ours, others = (deltas_of(folder) for folder in (found.folder, tiny_run.folder))
    assert all(
        torch.equal(ours[file][key], value) for file, part in others.items() for key, value in part.items()
    )
    shares = [(folder / "predictions").glob("*zero-shot*") for folder in (found.folder, tiny_run.folder)]
    assert next(shares[0]).read_bytes() != next(shares[1]).read_bytes()
    loaded = load_run(RunDir(found.folder))
    (notice,) = [
        one
        for one in summary(loaded, paired_changes(loaded.folder, loaded.results))
        if isinstance(one, Notice)
    ]
    assert any("Answers were computed in bf16" in sentence for sentence in notice.sentences)
    # Found finished, with what it says.
    assert run(located, strategy, out=tmp_path).results == found.results


def test_results_of_an_earlier_version_are_left_as_they_are(tiny_run, tiny_scenario, tiny_strategy, tmp_path):
    assert tiny_run.results["evaluation"] == {"precision": "fp32"}
    folder = tmp_path / tiny_run.folder.relative_to(tiny_run.folder.parents[2])
    shutil.copytree(tiny_run.folder, folder)
    results = json.loads((folder / "results.json").read_text())
    del results["evaluation"]
    (folder / "results.json").write_text(json.dumps(results))
    again = run(load_scenario(str(tiny_scenario)), load_strategy(str(tiny_strategy)), out=tmp_path)
    assert again.reused == 2 and "evaluation" not in again.results


def test_what_cannot_be_is_told_before_anything_is_written(
    tiny_scenario, tiny_strategy, tmp_path, monkeypatch, capsys
):
    words = ("run", tiny_scenario, "-s", tiny_strategy, "--out", tmp_path / "runs", "--device", "cpu")
    code, _, said = cli(monkeypatch, capsys, *words, "--set", "evaluation.precision=tf32")
    assert code == 2 and "evaluation.precision: tf32 is a way of NVIDIA GPUs" in said
    code, _, said = cli(monkeypatch, capsys, *words, "--set", "evaluation.precision=fp8")
    assert code == 2 and "fp8" in said and "bf16" in said
    assert not (tmp_path / "runs").exists()
