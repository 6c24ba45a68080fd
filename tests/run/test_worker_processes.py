"""Processes that are given jobs: once they are ended, whatever for, none of them begins another job."""

from __future__ import annotations

import os
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from cl_complora.run.worker_processes import WorkerProcesses, _Process


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
