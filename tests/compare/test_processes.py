"""Processes that run the trials of a comparison: spread over GPUs, and replaced where they are killed."""

from __future__ import annotations

import pytest
import torch

from builders.commands import cli
from builders.trials import killed
from cl_complora.compare import processes
from cl_complora.compare import workers as workers_module
from cl_complora.compare.processes import Processes, spread, visible_devices
from cl_complora.compare.trials import Trial
from cl_complora.compare.worker_kinds import open_workers
from cl_complora.compare.workers import Placing
from cl_complora.errors import UserError

TWO = ("cuda:0", "cuda:1")


@pytest.mark.parametrize(
    ("jobs", "share", "devices", "places"),
    [
        (1, None, ("cpu",), ["cpu"]),
        (3, None, ("auto",), ["auto"] * 3),
        (3, None, TWO, ["cuda:0", "cuda:1", "cuda:0"]),
        (1, None, TWO, ["cuda:0"]),
        (9, 0.5, TWO, ["cuda:0", "cuda:1"] * 2),
        (9, 1 / 3, ("cuda:0",), ["cuda:0"] * 3),
        (9, 1.0, TWO, ["cuda:0", "cuda:1"]),
        (9, 0.6, TWO, ["cuda:0", "cuda:1"]),
        (3, 0.25, TWO, ["cuda:0", "cuda:1", "cuda:0"]),
    ],
)
def test_runs_are_spread_over_the_devices(jobs, share, devices, places):
    assert spread(Placing(jobs=jobs, gpus_per_run=share), devices) == places


def test_every_gpu_that_is_shown_is_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("auto", "cuda"):
        assert visible_devices(Placing(jobs=2, device=device)) == list(TWO)
        assert visible_devices(Placing(jobs=1, device=device)) == [device]  # torch chooses
        assert visible_devices(Placing(jobs=1, device=device, gpus_per_run=1.0)) == list(TWO)
    for device in ("cpu", "cuda:1"):
        assert visible_devices(Placing(jobs=2, device=device)) == [device]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert visible_devices(Placing(jobs=2)) == ["auto"]


@pytest.mark.parametrize(("allowed", "threads"), [("", 4), ("3", 3), ("9", 4), ("0", 4), ("many", 4)])
def test_a_run_takes_no_more_threads_than_are_allowed(allowed, threads, monkeypatch):
    monkeypatch.setattr(workers_module, "cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    assert Placing(jobs=2).threads_of_run() == threads
    assert Placing(jobs=2, threads=6).threads_of_run() == 6


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_run_takes_a_part_of_one_gpu(share):
    with pytest.raises(UserError, match="at most 1: a run uses one GPU"):
        open_workers(Placing(gpus_per_run=share))


def test_a_share_of_no_gpu_is_refused(tmp_path, tiny_scenario, monkeypatch, capsys):
    words = ("compare", tiny_scenario, "-s", "zeroshot", "--device", "cpu", "--gpus-per-run", "0.5")
    code, _, said = cli(monkeypatch, capsys, *words, "--out", tmp_path / "runs")
    assert code == 2 and "--gpus-per-run 0.5: there is no GPU to share" in said
    assert not (tmp_path / "runs").exists()


def test_a_killed_process_costs_its_run_another_try_and_nothing_else(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "run_trial", killed)
    trials = [Trial(name, (), 0, False, None, None, "") for name in ("once", "always", "never")]
    told, said = [], []
    placing = Placing(tmp_path, jobs=3, gpus_per_run=1.0)
    with Processes(placing, TWO, said.append) as workers:
        outcomes = workers.run(trials, lambda t, outcome: told.append(t.method))
        again = workers.run([Trial("never", (), 1, False, None, None, "")], lambda *told: None)
    tries = {t.method: (tmp_path / f"{t.method}0").read_text().split() for t in trials}
    assert {name: len(devices) for name, devices in tries.items()} == {"once": 2, "always": 2, "never": 1}
    assert outcomes[0].error == f"once 0 on {tries['once'][1]}" and "killed from outside" in outcomes[1].error
    assert outcomes[2].error.startswith("never 0 on cuda:") and again[0].error.startswith("never 1 on cuda:")
    assert sorted(told) == sorted(t.method for t in trials) and "2 runs at a time and not 3" in said[0]
