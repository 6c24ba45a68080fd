"""A state of a run measured on the run's own stream, as ``cl-complora eval`` does it."""

from __future__ import annotations

from cl_complora.finished.asked_sets import Measured
from cl_complora.finished.eval_request import Opened
from cl_complora.finished.evaluation import stream_asked
from cl_complora.finished.states import State


def on_own_stream(state: State, own: bool = True) -> list[Measured]:
    """Every task and set of the run.

    Args:
        state: the state.
        own: whether the run measured this very state (no task left out or scaled).
    """
    asked = stream_asked(state)
    opened = Opened(state.loaded, asked, state.precision, state.batch_size, "cpu", "", (), state, own)
    return opened.measured(opened.answer(opened.parts()))
