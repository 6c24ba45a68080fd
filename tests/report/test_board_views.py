"""TensorBoard of streams that are not the usual: trained all at once, with a task of captions, cut off at the
very end."""

from __future__ import annotations

import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from builders.caption_tasks import with_captions
from builders.interruptions import Stop, StopAfter
from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.report.run.causes import changed_answers
from cl_complora.report.tensorboard import writer as board
from cl_complora.report.tensorboard.layout import MeasuredNames
from cl_complora.run.stream import run
from cl_complora.store.folder import RunDir
from cl_complora.store.loaded_run import load_run


def go(scenario, out, strategy="lora", **options):
    quick = load_strategy(strategy, ["training.steps=3", "training.batch_size=4"])
    return run(load_scenario(str(scenario)), quick, out=out, **options)


def test_a_run_cut_off_after_its_last_record_gets_the_rest_of_its_events(tmp_path, tiny_scenario):
    whole = tags(go(tiny_scenario, tmp_path / "whole").folder)
    with pytest.raises(Stop):
        go(tiny_scenario, tmp_path / "parts", progress=StopAfter(2))
    (results,) = (tmp_path / "parts").rglob("results.json")
    assert json.loads(results.read_text())["status"] == "running"
    parts = go(tiny_scenario, tmp_path / "parts")
    assert parts.results["status"] == "done" and parts.reused == 2
    assert tags(parts.folder) == whole
    assert json.loads(results.read_text()) == parts.results


def tags(folder) -> dict:
    return EventAccumulator(str(folder / "tensorboard"), {"tensors": 0}).Reload().Tags()


def test_of_joint_training_every_state_tells_what_the_stream_ends_with(tmp_path, tiny_scenario):
    done = go(tiny_scenario, tmp_path, "joint")
    board = EventAccumulator(str(done.folder / "tensorboard"), {"tensors": 0}).Reload()
    scalars = board.Tags()["scalars"]
    for name in ("last", "average", "forgetting", "bwt"):
        values = [event.value for event in board.Scalars(f"stream/{name}")]
        assert values == pytest.approx([done.results[name]] * 2, abs=1e-6), name
    assert done.results["transfer"] is None and "stream/transfer" not in scalars
    assert not [tag for tag in scalars if tag.startswith(("forgetting/", "bwt/"))]
    texts = [event.tensor_proto.string_val[0].decode() for event in board.Tensors("accuracy/text_summary")]
    rows = [line for line in texts[-1].splitlines() if line.startswith(("| warm", "| cold"))]
    assert [row.count("**") for row in rows] == [4, 0]


@pytest.fixture(scope="module")
def captioned(tmp_path_factory, tiny_scenario):
    stream = with_captions(tmp_path_factory.mktemp("captions"), tiny_scenario.read_text())
    # Strong enough to forget: the board has new mistakes to draw.
    strong = load_strategy("finetune", ["training.steps=8", "optimiser.lr=0.02", "training.batch_size=4"])
    return run(load_scenario(str(stream)), strong, out=tmp_path_factory.mktemp("out")).folder


def test_new_mistakes_are_looked_for_beside_tasks_of_captions(captioned, tmp_path, monkeypatch):
    looked = []
    real = board.changes

    def noted(folder, config, name, *states):
        looked.append((name, states))
        return real(folder, config, name, *states)

    monkeypatch.setattr(board, "changes", noted)
    folder = RunDir(captioned)
    names = MeasuredNames(["told", "warm", "cold"], ["colours"])  # as if the task of captions came first
    writer = board.BoardWriter(folder, names, False, lambda name, places: torch.zeros(0))
    writer.retrieval = load_run(folder).records[0]["retrieval"]
    writer._mistakes(3)
    writer.writer.close()
    assert looked == [("warm", (2, 3))]


def test_answers_that_are_gone_hide_no_other_task(captioned, monkeypatch):
    looked = []

    def gone(folder, config, name, *states):
        looked.append(name)
        raise UserError("gone")

    monkeypatch.setattr(board, "changes", gone)
    names = MeasuredNames(["a", "b", "c"])
    writer = board.BoardWriter(RunDir(captioned), names, False, lambda name, places: None)
    writer._mistakes(3)
    writer.writer.close()
    assert looked == ["a", "b"]


def test_the_report_looks_at_the_most_forgotten_task_that_has_classes(captioned):
    loaded = load_run(RunDir(captioned))
    rows = loaded.rows
    for told, warm, worst in ((0.1, 0.5, "warm"), (0.1, 1.0, None)):
        rows[:, 0] = [0.5, 1.0, 1.0, warm]
        rows[:, 1] = [0.5, 0.5, 0.9, told]  # loses most
        loaded.results["accuracy"] = rows.tolist()
        assert loaded.most_forgotten() == 1
        said = str(changed_answers(loaded))
        assert "missing or damaged" not in said
        assert f"The most forgotten task of classes is {worst}." in said if worst else said == "[]"
