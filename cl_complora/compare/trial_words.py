"""What ``run`` says, in the options of ``compare`` and ``tune``: their trials are runs, but neither command
can do all that a ``run`` can.

Imports nothing that takes time: the command line names this before it knows which command is meant.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import UserError

_FIRST = "a scenario is the first argument of 'cl-complora {}'"
_START_OVER = "give another --out, or move that folder away to have the run made anew"
_OF_COMMANDS = {
    "compare": {
        _FIRST.format("run"): _FIRST.format("compare"),
        "a strategy is given with --strategy": "strategies are given with --strategies",
    },
    "tune": {_FIRST.format("run"): _FIRST.format("tune")},
}


def of_trials(message: str) -> str:
    """What a run said, without the options that only ``run`` has."""
    return _replaced(message, _of_runs())


@contextmanager
def words_of(command: str) -> Iterator[None]:
    """Within, a :class:`UserError` names no option that a command does not have.

    Args:
        command: ``compare`` or ``tune``.
    """
    try:
        yield
    except UserError as error:
        first, *more = (_replaced(of_trials(message), _OF_COMMANDS[command]) for message in error.messages)
        raise UserError(first, tuple(more)) from None


@functools.cache
def _of_runs() -> dict[str, str]:
    """Phrases of runs → of trials; of two that begin alike the longer one first."""
    from ..run.failures import WITH_FRESH
    from ..store.provenance import START_OVER, WEIGHTS

    return {
        WITH_FRESH: "",
        START_OVER: _START_OVER,
        "use --fresh to start over": _START_OVER,
        f"({WEIGHTS})": "(--set model.name, model.config, model.pretrained)",
        "model.pretrained (--pretrained) and model.config (--model-config)": (
            "model.pretrained and model.config (--set, or the scenario's file)"
        ),
    }


def _replaced(message: str, phrases: dict[str, str]) -> str:
    for phrase, here in phrases.items():
        message = message.replace(phrase, here)
    return message
