"""What is imported is not searched for garbage, which is looked for again afterwards in any case."""

from __future__ import annotations

import gc
import sys

import pytest

from cl_complora.run.allocator import uncollected


@pytest.fixture
def frozen(monkeypatch):
    """How often something was taken out of the search; nothing of this process really is."""
    times = []
    monkeypatch.setattr(gc, "freeze", lambda: times.append(gc.isenabled()))
    return times


def test_only_where_torch_is_still_to_be_imported(frozen, monkeypatch):
    with uncollected():
        assert gc.isenabled()
    assert not frozen
    monkeypatch.delitem(sys.modules, "torch")
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled() and frozen == [False]


def test_an_import_that_fails_leaves_it_on(frozen, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled() and not frozen


def test_who_has_switched_it_off_keeps_it_off(frozen, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled() and not frozen
    finally:
        gc.enable()
