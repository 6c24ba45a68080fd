"""Stops of a run at a chosen moment, and what two runs must have in common."""

from __future__ import annotations

import signal
from pathlib import Path

import torch
from safetensors.torch import load_file

from cl_complora.progress import Quiet
from cl_complora.run.signals import Stopping


class Said(Quiet):
    """Keeps the lines that a run tells."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


class Stop(Exception):
    """A run that ends at a chosen moment."""


class StopAfter(Quiet):
    """Breaks off once a state was measured and recorded, as a crash would.

    Args:
        learned: number of tasks behind that state.
    """

    def __init__(self, learned: int) -> None:
        self.learned = learned

    def evaluated(self, index, row, zero_shot):
        if index == self.learned:
            raise Stop


class AfterFirstTask(Quiet):
    def task(self, index, total, name, steps):
        if index == 1:
            raise Stop


def ask_after(monkeypatch, steps: int) -> None:
    """As if a signal came during a step: the run saves and stops there, once."""
    calls = []
    real = Stopping.is_asked

    def asked(self):
        calls.append(1)
        if len(calls) == steps:
            self.asked = signal.SIGTERM
        return real(self)

    monkeypatch.setattr(Stopping, "is_asked", asked)


def same_bits(ours: Path, theirs: Path) -> bool:
    """Whether two runs left the same updates, and heads, tensor by tensor."""
    a, b = _tensors(ours), _tensors(theirs)
    return a.keys() == b.keys() and all(
        a[f].keys() == b[f].keys() and all(torch.equal(a[f][k], b[f][k]) for k in a[f]) for f in a
    )


def _tensors(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {path.name: load_file(path) for path in sorted(folder.glob("[dh]e*/*.safetensors"))}
