"""A task's update taken out of a run, and what must be left then."""

from __future__ import annotations

from pathlib import Path

import torch

from cl_complora.errors import UserError
from cl_complora.finished.states import find_state
from cl_complora.store.deltas import load_delta

REASONS = ("learned all at once", "one head answers for all tasks", "hold a part of it")
AT_ONCE, ONE_HEAD, HELD_ON = REASONS
# Shipped strategies whose later updates hold a part of what earlier tasks added.
HOLDING = {"sdlora", "lfa"}


def left_out(run: Path, task: str) -> str:
    """``exactly`` where the model without a task is W_0 plus the other updates to the bit and the task's head
    is gone, else the reason of the refusal."""
    try:
        state = find_state(run, scale={task: 0.0})
    except UserError as refused:
        return next(reason for reason in REASONS if reason in str(refused))
    expected = {name: value.clone() for name, value in state.loaded.model.state_dict().items()}
    others = [name for name in state.after if name != task]
    for name in others:
        load_delta(state.folder.delta(state.results["tasks"].index(name), name)).add_to(expected)
    state.merge()
    assert all(torch.equal(expected[name], value) for name, value in state.loaded.model.state_dict().items())
    assert set(state.heads()) <= set(others)
    return "exactly"
