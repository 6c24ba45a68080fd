"""How many threads compute a run."""

from __future__ import annotations

import pytest
import torch

from cl_complora.run import threads
from cl_complora.store.folder import RunDir


@pytest.fixture
def folder(tmp_path, monkeypatch) -> RunDir:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield RunDir(tmp_path)
    torch.set_num_threads(before)


def count(folder: RunDir, width: int = 4, device: str = "cpu") -> int:
    with threads.computing_with(threads.threads_of(folder, torch.nn.Linear(width, width), device)):
        return torch.get_num_threads()


def test_a_small_model_on_the_cpu_gets_one_and_others_all(folder, monkeypatch):
    assert count(folder) == 1 and torch.get_num_threads() == 3
    assert count(folder, device="cuda:0") == 3
    monkeypatch.setattr(threads, "SMALL", 10)
    assert count(folder) == 3


def test_the_environment_decides_for_a_run_that_begins(folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert count(folder) == 3


def test_a_run_goes_on_with_what_it_began_with(folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(folder, "read_config", lambda: {"threads": 2})
    assert count(folder) == 2 and torch.get_num_threads() == 3


def test_after_a_failure_the_number_is_what_it_was(folder):
    with pytest.raises(RuntimeError), threads.computing_with(1):
        raise RuntimeError
    assert torch.get_num_threads() == 3
