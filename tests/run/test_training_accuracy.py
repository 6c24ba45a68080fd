"""Accuracy on the batches of every training step: counted rightly, resumed to the bit, absent in old runs."""

from __future__ import annotations

import json

import pytest
import torch

from builders.interruptions import ask_after
from builders.pages import read
from builders.places import LONG
from cl_complora.config import load_scenario, load_strategy
from cl_complora.engine.training.schedule import CurvePlugin, share_right
from cl_complora.report.html import write_report
from cl_complora.report.run.figures import smoothed
from cl_complora.run.signals import Stopped
from cl_complora.run.stream import run
from cl_complora.store.folder import RunDir

CAPTION = "Accuracy on the training batches by step"


def go(scenario, out, **options):
    quick = load_strategy("lora", ["training.steps=6", "training.batch_size=4"])
    return run(load_scenario(str(scenario)), quick, out=out, **options)


def shares(folder, index: int) -> list[float | None]:
    return json.loads(RunDir(folder).record(index, ("warm", "cold")[index]).read_text())["training_accuracy"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_scenario):
    """A run, and of every step how many of how many images were right."""
    counted: list[tuple[int, int]] = []
    real = CurvePlugin.after_training_iteration

    def counting(self, strategy, **kwargs):
        pairs = list(zip(strategy.mb_output.tolist(), strategy.mb_y.tolist(), strict=True))
        counted.append((sum(logits.index(max(logits)) == label for logits, label in pairs), len(pairs)))
        return real(self, strategy, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CurvePlugin, "after_training_iteration", counting)
        return go(tiny_scenario, tmp_path_factory.mktemp("whole")), counted


def without(path, key: str) -> None:
    """A record as a version wrote it that did not know the key."""
    content = json.loads(path.read_text())
    del content[key], content["sha256"]
    path.write_text(json.dumps(content))


def test_every_step_has_the_share_of_its_batch_that_was_right(whole):
    ran, counted = whole
    assert len(counted) == 12 and {images for _, images in counted} == {4}
    assert shares(ran.folder, 0) + shares(ran.folder, 1) == [right / images for right, images in counted]


def test_each_image_is_judged_in_its_own_label_space_and_captions_are_left_out():
    least = torch.finfo(torch.float32).min
    logits = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, least], [0.5, 1.0, least], [9.0, 1.0, 0.0]])
    labels, of = torch.tensor([2, 0, 0, 0]), torch.tensor([0, 1, 1, 0])
    assert float(share_right(logits, labels, of, [False, False])) == 0.75
    assert float(share_right(logits, labels, of, [True, False])) == 0.5
    assert float(share_right(logits, labels, of, [False, True])) == 1.0
    assert share_right(logits, labels, of, [True, True]).isnan()


@pytest.mark.parametrize("step", [2, 5] if LONG else [5])
def test_a_run_stopped_inside_a_task_has_the_same_curve_to_the_bit(
    whole, tiny_scenario, tmp_path, monkeypatch, step
):
    with monkeypatch.context() as patch:
        ask_after(patch, step)
        with pytest.raises(Stopped):
            go(tiny_scenario, tmp_path)
    again = go(tiny_scenario, tmp_path)
    assert [shares(again.folder, task) for task in (0, 1)] == [shares(whole[0].folder, t) for t in (0, 1)]


def test_a_state_of_a_version_that_did_not_count_them_is_gone_on_from(
    whole, tiny_scenario, tmp_path, monkeypatch
):
    real = CurvePlugin.step_state
    with monkeypatch.context() as patch:
        patch.setattr(
            CurvePlugin, "step_state", lambda self: {k: v for k, v in real(self).items() if k != "right"}
        )
        ask_after(patch, 4)
        with pytest.raises(Stopped):
            go(tiny_scenario, tmp_path)
    again = go(tiny_scenario, tmp_path)
    assert shares(again.folder, 0) == [None] * 4 + shares(whole[0].folder, 0)[4:]
    assert CAPTION in read(write_report(again.folder)).text


def test_records_of_a_version_that_did_not_count_them_are_gone_on_from_and_reported(
    whole, tiny_scenario, tmp_path, monkeypatch
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with monkeypatch.context() as patch:
        ask_after(patch, 8)
        with pytest.raises(Stopped):
            go(tiny_scenario, tmp_path)
    folder = RunDir.of(tmp_path, "tiny", "lora", 0)
    without(folder.record(0, "warm"), "training_accuracy")
    again = go(tiny_scenario, tmp_path)
    assert again.reused == 1 and shares(again.folder, 1) == shares(whole[0].folder, 1)
    board = EventAccumulator(str(again.folder / "tensorboard"))
    board.Reload()
    found = [(e.step, e.value) for e in board.Scalars("train/accuracy")]
    assert found == [(step, pytest.approx(share)) for step, share in enumerate(shares(again.folder, 1), 7)]
    assert len(board.Scalars("train/loss")) == 12
    drawn = "Accuracy on the training batches of"
    text = read(write_report(again.folder)).text
    assert CAPTION in text and f"{drawn} cold" in text and f"{drawn} warm" not in text
    without(folder.record(1, "cold"), "training_accuracy")
    text = read(write_report(again.folder)).text
    assert CAPTION not in text and "Training loss by step" in text


def test_a_record_with_fewer_of_them_than_steps_is_damaged(whole, tiny_scenario, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        ask_after(patch, 8)
        with pytest.raises(Stopped):
            go(tiny_scenario, tmp_path)
    path = RunDir.of(tmp_path, "tiny", "lora", 0).record(0, "warm")
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content | {"training_accuracy": [0.5]}))
    again = go(tiny_scenario, tmp_path)
    assert again.reused == 0 and shares(again.folder, 0) == shares(whole[0].folder, 0)


def test_the_running_mean_leaves_out_what_is_not_known():
    nan = float("nan")
    values = torch.arange(40.0).numpy()
    assert smoothed(values)[:3].tolist() == [1.0, 1.5, 2.0] and smoothed(values)[20] == 20
    values[:3] = nan
    assert smoothed(values)[0] != smoothed(values)[0] and smoothed(values)[1] == 3.0
    assert smoothed(values[3:9]).tolist() == values[3:9].tolist()
