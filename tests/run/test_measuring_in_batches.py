"""``evaluation.batch_size``: images at a time where the model is measured, by a run and by what reads it."""

from __future__ import annotations

import shutil

import pytest
import torch

from builders.commands import cli
from builders.runs import deltas_of
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.config import load_scenario, load_strategy
from cl_complora.run.kept_answers import KeptAnswers
from cl_complora.run.stream import run


@pytest.fixture
def sizes(monkeypatch) -> list[int]:
    """Images of every batch that the image tower is given without gradients."""
    seen, whole = [], ClipClassifier.image_features

    def counted(self, images):
        if not torch.is_grad_enabled():
            seen.append(len(images))
        return whole(self, images)

    monkeypatch.setattr(ClipClassifier, "image_features", counted)
    return seen


def go(scenario, strategy, out, *settings):
    return run(load_scenario(str(scenario), list(settings)), load_strategy(str(strategy)), out=out)


def test_a_run_measures_as_many_images_at_a_time(
    tiny_scenario, tiny_strategy, tiny_run, tmp_path, sizes, monkeypatch
):
    monkeypatch.setattr(KeptAnswers, "_file", lambda *asked: None)
    found = go(tiny_scenario, tiny_strategy, tmp_path, "evaluation.batch_size=3")
    assert max(sizes) == 3
    # Training knows nothing of it.
    ours, others = (deltas_of(folder) for folder in (found.folder, tiny_run.folder))
    assert all(
        torch.equal(ours[file][key], value) for file, part in others.items() for key, value in part.items()
    )
    assert found.results["accuracy"] == tiny_run.results["accuracy"]


def test_finished_runs_are_measured_as_they_were(
    tiny_scenario, tiny_strategy, tmp_path, sizes, monkeypatch, capsys
):
    folder = go(tiny_scenario, tiny_strategy, tmp_path, "evaluation.batch_size=3").folder
    for words, most in (
        (("eval", folder, "--device", "cpu"), 3),
        (("eval", folder, "--batch-size", "5", "--device", "cpu"), 5),
        (("audit", folder), 3),
        (("regions", folder), 3),
        (("eval", folder, "--curve", "warm", "--device", "cpu"), 3),
        (("eval", "embedded", "--data", "digits", "--batch-size", "100", "--device", "cpu"), 100),
    ):
        sizes.clear()
        code, _, said = cli(monkeypatch, capsys, *words)
        assert code == 0, said
        assert max(sizes) == most, words
    code, _, said = cli(monkeypatch, capsys, "eval", folder, "--batch-size", "0")
    assert code == 2 and "--batch-size" in said and "Traceback" not in said


def test_kept_answers_of_other_batches_are_not_taken(tiny_scenario, tiny_strategy, tmp_path, sizes):
    go(tiny_scenario, tiny_strategy, tmp_path / "first", "evaluation.batch_size=2")
    sizes.clear()
    go(tiny_scenario, tiny_strategy, tmp_path / "second", "evaluation.batch_size=2")
    again = len(sizes)
    sizes.clear()
    shutil.rmtree(tmp_path / "second")
    go(tiny_scenario, tiny_strategy, tmp_path / "second", "evaluation.batch_size=3")
    assert len([size for size in sizes if size == 3]) > 0 and len(sizes) != again


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory: 2 GiB")])
def test_too_little_memory_is_told_in_a_line(tiny_run, error, monkeypatch, capsys):
    def refuse(self, images):
        raise error

    monkeypatch.setattr(ClipClassifier, "image_features", refuse)
    code, _, said = cli(monkeypatch, capsys, "eval", tiny_run.folder, "--device", "cpu")
    assert code == 1 and said.startswith("error: too little memory (") and "--batch-size" in said
    assert said.count("\n") == 1


def test_other_errors_stay_what_they_are(tiny_run, monkeypatch):
    def refuse(self, images):
        raise RuntimeError("something else")

    monkeypatch.setattr(ClipClassifier, "image_features", refuse)
    monkeypatch.setattr("sys.argv", ["cl-complora", "eval", str(tiny_run.folder), "--device", "cpu"])
    from cl_complora.cli import main

    with pytest.raises(RuntimeError, match="something else"):
        main()
