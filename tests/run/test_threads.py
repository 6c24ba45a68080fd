"""How many threads compute a run."""

from __future__ import annotations

import pytest
import torch

from cl_complora.run import threads
from cl_complora.store.folder import RunDir


@pytest.fixture
def folder(tmp_path) -> RunDir:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield RunDir(tmp_path)
    torch.set_num_threads(before)


def test_a_run_that_begins_has_those_that_are_set(folder):
    assert threads.threads_of(folder, False) == 3


def test_a_run_goes_on_with_what_it_began_with(folder, monkeypatch):
    monkeypatch.setattr(folder, "read_config", lambda: {"threads": 2})
    with threads.computing_with(threads.threads_of(folder, False)):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 3
    assert threads.threads_of(folder, True) == 3


def test_after_a_failure_the_number_is_what_it_was(folder):
    with pytest.raises(RuntimeError), threads.computing_with(1):
        raise RuntimeError
    assert torch.get_num_threads() == 3
