"""The one error that a user's own input may cause: a sentence, no traceback, exit code 2."""

from __future__ import annotations

from collections.abc import Sequence

# A message holds a path of up to 4096 characters and a sentence about it.
MOST_CHARACTERS = 6000
# More faults than this come from one mistake, or from a file of another kind.
MOST_FAULTS = 20


class UserError(Exception):
    """Bad input told in one line per fault (file, line, key, value and what is allowed).

    Names and values from files may stand in the messages as they are: what would break the line or steer a
    terminal is escaped here.

    Args:
        message: the sentence shown to the user.
        more: further faults found in the same input, one sentence each.
    """

    def __init__(self, message: str, more: tuple[str, ...] = ()) -> None:
        self.messages: tuple[str, ...] = tuple(printable(text, MOST_CHARACTERS) for text in (message, *more))
        super().__init__(self.messages[0])

    def __str__(self) -> str:
        """All messages, one a line: what Python and notebooks show of an error."""
        return "\n".join(self.messages)


def raise_all(faults: Sequence[str]) -> None:
    """Raise the faults as one error, each once, where there are any."""
    if faults:
        first, *more = dict.fromkeys(faults)
        raise UserError(first, tuple(more))


def reason(error: Exception) -> str:
    """The kind of an error of a library and the beginning of what it says, in one line."""
    text = " ".join(str(error).split())
    text = f"{text[:200]}…" if len(text) > 200 else text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def printable(text: str, most: int = 80) -> str:
    """A text from a file made fit for one line of a terminal."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
