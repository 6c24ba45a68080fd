"""The one error that a user's own input may cause: a sentence, no traceback, exit code 2."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """Bad input told in one line per fault (file, line, key, value and what is allowed).

    Args:
        message: the sentence shown to the user.
        more: further faults found in the same input, one sentence each.
    """

    def __init__(self, message: str, more: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.messages: tuple[str, ...] = (message, *more)


def raise_all(faults: Sequence[str]) -> None:
    """Raise the faults as one error, each once, where there are any."""
    if faults:
        first, *more = dict.fromkeys(faults)
        raise UserError(first, tuple(more))
