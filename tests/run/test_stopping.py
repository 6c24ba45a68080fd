"""A signal ends what it comes in, whatever bears every other error; what other processes make of it."""

from __future__ import annotations

import os
import pickle
import signal

import pytest

from builders.images import paint
from builders.runs import without_timings
from cl_complora.config import load_scenario, load_strategy
from cl_complora.data.images import pixels
from cl_complora.report import trackers
from cl_complora.run import ray_cluster
from cl_complora.run.signals import Stopped, exit_code_of
from cl_complora.run.stream import run
from cl_complora.run.worker_processes import WorkerProcesses


class Signalled:
    """A tracker during whose work a signal comes, once."""

    asked = False

    def scalar(self, tag, value, step):
        if step == 2 and not Signalled.asked:
            Signalled.asked = True
            os.kill(os.getpid(), signal.SIGTERM)

    def figure(self, tag, picture, step):
        pass

    def end(self):
        pass


def test_a_tracker_that_is_told_something_does_not_take_the_signal(tmp_path, tiny_scenario, monkeypatch):
    monkeypatch.setattr(trackers, "check_trackers", lambda names: None)
    monkeypatch.setattr(trackers, "import_module", lambda name: None)
    monkeypatch.setitem(trackers._KINDS, "wandb", lambda *given: Signalled())
    quick = load_strategy("lora", ["training.steps=3", "training.batch_size=4"])
    scenario = load_scenario(str(tiny_scenario))
    with pytest.raises(Stopped) as stopped:
        run(scenario, quick, out=tmp_path / "parts", log=["wandb"])
    assert stopped.value.exit_code == exit_code_of(stopped.value) == 143
    parts = run(scenario, quick, out=tmp_path / "parts", log=["wandb"])
    whole = run(scenario, quick, out=tmp_path / "whole")
    assert without_timings(parts.results) == without_timings(whole.results)


def stop(*given: object) -> None:
    raise Stopped(signal.SIGINT)


def test_a_tracker_that_is_opened_does_not_take_it_either(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "import_module", stop)
    with pytest.raises(Stopped):
        trackers.open_trackers(["wandb"], "a run", {}, tmp_path, print)


def test_a_picture_that_is_decoded_is_not_taken_for_damaged(tmp_path, monkeypatch):
    paint(tmp_path / "red.png", (200, 0, 0), 0)
    monkeypatch.setattr(pixels, "open_picture", stop)
    with pytest.raises(Stopped):
        pixels.Pixels((8, 8)).read(tmp_path / "red.png")


def test_ray_is_told_of_it_by_an_error_that_it_tries_again(tmp_path):
    """A KeyboardInterrupt is to Ray what it cancelled itself."""
    marker = tmp_path / "marker"
    marker.touch()
    before = os.getcwd()
    try:
        with pytest.raises(ray_cluster.Drained, match="SIGINT") as drained:
            ray_cluster._do(stop, (), 1, str(tmp_path), marker, "--out")
    finally:
        os.chdir(before)
    assert isinstance(drained.value, Exception) and pickle.loads(pickle.dumps(drained.value))


def stopped_once(file: str, device: str) -> str:
    if os.path.exists(file):
        return f"done on {device}"
    open(file, "w").close()
    raise Stopped(signal.SIGTERM)


def test_a_worker_that_is_asked_to_end_leaves_its_job_to_another(tmp_path):
    with WorkerProcesses(["cpu"], 1) as workers:
        assert list(workers.each(stopped_once, [(str(tmp_path / "begun"),)])) == [(0, "done on cpu")]
    again = pickle.loads(pickle.dumps(Stopped(signal.SIGTERM)))
    assert isinstance(again, KeyboardInterrupt) and again.exit_code == 143 and str(again) == "SIGTERM"
