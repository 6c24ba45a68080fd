"""Processes that are given jobs: once they are ended, whatever for, none of them begins another job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from cl_complora.compare.processes import _lost
from cl_complora.run import worker_processes
from cl_complora.run.worker_processes import Ended, WorkerProcesses, _ended_with, _Process

KILLED = Ended("killed from outside", killed=True)


def begin(folder: str, number: int, device: str) -> int:
    """The first job is done at once, the others take longer than anybody waits here."""
    Path(folder, f"begun-{number}").touch()
    if number:
        time.sleep(10)
        Path(folder, f"ended-{number}").touch()
    return number


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_waits_is_not_begun_when_an_error_ends_all(tmp_path, error):
    with pytest.raises(error), WorkerProcesses(["cpu", "cpu"], 1) as workers:
        for _ in workers.each(begin, [(str(tmp_path), number) for number in range(6)]):
            end = time.monotonic() + 60
            while len(list(tmp_path.iterdir())) < 3 and time.monotonic() < end:
                time.sleep(0.01)
            raise error
    assert sorted(os.listdir(tmp_path)) == ["begun-0", "begun-1", "begun-2"]


def test_an_ended_process_takes_no_job(tmp_path):
    process = _Process("cpu", 1)
    process.end(now=True)
    with pytest.raises(CancelledError):
        process.do(begin, (str(tmp_path), 0))
    process.wait()
    assert not os.listdir(tmp_path)


UNGUARDED = """
from cl_complora.run.worker_processes import WorkerProcesses
with WorkerProcesses(["cpu"], 1) as workers:
    ((_, found),) = workers.each(max, [(1,)])
print(found.starting, found.killed, found.why)
"""


def test_a_script_that_its_processes_cannot_read_again_is_told_as_the_cause(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True False its process ended with an error while it was starting (exit")
    assert f"the likely cause: every process reads {script} again, and that starts" in done.stdout
    assert done.stdout.endswith(' below if __name__ == "__main__":\n')
    assert done.stderr.count("Traceback") == 1


def broken(*settings: object) -> None:
    raise ImportError("no module\nnamed torch")


def out(code: int, device: str) -> None:
    os._exit(code) if code > 0 else os.kill(os.getpid(), -code)


def test_an_error_while_a_process_starts_is_told_and_not_tried_again(monkeypatch, capfd):
    monkeypatch.setattr(worker_processes, "_prepare", broken)
    monkeypatch.setattr(worker_processes, "_settle", settled_with_broken)
    with WorkerProcesses(["cpu"], 1) as workers:
        ((_, found),) = workers.each(out, [(1,)])
    assert found.starting and found.why.endswith("while it was starting: ImportError: no module named torch")
    lost = _lost(found)
    assert lost.error == found.why and lost.lost and lost.refused and "memory" not in lost.error


def settled_with_broken(*settings: object) -> None:
    worker_processes._prepare = broken
    settle(*settings)


settle = worker_processes._settle


def test_how_a_process_ended_is_told():
    with WorkerProcesses(["cpu"], 1) as workers:
        found = dict(workers.each(out, [(3,), (-signal.SIGKILL,)]))
    assert found == {0: Ended("its process ended by itself (exit code 3)"), 1: KILLED}
    assert _lost(KILLED).error.startswith("killed from outside, twice (not enough memory")
    crashed = _ended_with(-signal.SIGSEGV, "")
    assert _lost(crashed).error == "its process crashed (SIGSEGV), twice; the same command goes on"
    assert _ended_with(None, None) == _ended_with(-signal.SIGKILL, None) == KILLED
    assert _ended_with(-250, "").why == "its process crashed (signal 250)"


def end_slowly(folder: str, device: str) -> None:
    """A job that, asked to end, takes a while, as one does that saves its training; asked again, it ends."""

    def asked(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        Path(folder, "asked").touch()

    signal.signal(signal.SIGTERM, asked)
    Path(folder, "begun").touch()
    time.sleep(60)
    Path(folder, "ended").touch()


def interrupt_when(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_second_interrupt_ends_at_once_and_leaves_no_process_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before, begun = signal.getsignal(signal.SIGINT), time.monotonic()
    workers = WorkerProcesses(["cpu"], 1)
    with pytest.raises(KeyboardInterrupt, match="the first"), workers:
        threading.Thread(target=interrupt_when, args=[tmp_path / "asked"]).start()
        job = workers._waiting.submit(workers._do, end_slowly, (str(tmp_path),))
        while not (tmp_path / "begun").exists() and time.monotonic() < begun + 60:
            time.sleep(0.01)
        raise KeyboardInterrupt("the first")
    assert time.monotonic() < begun + 60 and not (tmp_path / "ended").exists()
    assert job.done() and workers._processes[0]._pool is None
    assert os.environ["OMP_NUM_THREADS"] == "3" and signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_that_comes_when_all_is_done_is_raised_once_processes_are_gone(tmp_path):
    workers = WorkerProcesses(["cpu"], 1)
    with pytest.raises(KeyboardInterrupt), workers:
        assert [index for index, _ in workers.each(begin, [(str(tmp_path), 0)])] == [0]
        end = workers._processes[0].end
        workers._processes[0].end = lambda now: (end(now), os.kill(os.getpid(), signal.SIGINT))
    assert workers._processes[0]._pool is None
