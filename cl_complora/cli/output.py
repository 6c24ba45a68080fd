"""Standard output as it may turn out: closed, closed early, full, or unable to hold every character.

What was computed is on disk before it is printed, so that nothing here may end the work.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import typer

from ..errors import printable

# As of a program that SIGPIPE ends: 128 and the signal's number, which Windows does not have.
UNREAD = 128 + 13

# What Windows says of a closed pipe is EINVAL.
_CLOSED = (errno.EPIPE, errno.EINVAL)

# Of signs; letters and numbers are those of names, two of which may differ in nothing else.
_NEAREST = {
    "±": "+/-",
    "–": "-",
    "—": "-",
    "−": "-",
    "·": ".",
    "…": "...",
    "→": "->",
    "≥": ">=",
    "≤": "<=",
    "×": "x",
    "‖": "|",
    "Δ": "D",
    "λ": "lambda",
    "▲": "^",
    "▼": "v",
    "’": "'",
    "“": '"',
    "”": '"',
}


def _nearest(error: UnicodeError) -> tuple[str, int]:
    """What stands for the characters that an encoding does not hold; an error handler of codecs."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    if character in _NEAREST:
        return _NEAREST[character]
    plain = unicodedata.normalize("NFKD", character)
    if plain.isascii() and unicodedata.category(character)[0] not in "LMN":
        return plain
    if "─" <= character <= "▟":  # lines and blocks, as bars of progress are drawn with
        return "?"
    return character.encode("ascii", "backslashreplace").decode()


_HANDLER = "cl_complora.nearest"
codecs.register_error(_HANDLER, _nearest)


class Output:
    """A text stream that takes every character and outlives its reader.

    It stands in for ``sys.stdout`` or ``sys.stderr``. There is no ``buffer``: bytes that pass it by would
    come out of order.

    Args:
        stream: what is written to.

    Attributes:
        needed: whether nobody needs what this command does once nobody reads it; it then ends quietly.
        fault: why nothing can be written any more; None while something can.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.needed = False
        self.fault: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        if name in ("buffer", "detach", "reconfigure"):
            raise AttributeError(name)
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what the encoding holds; of the rest, the nearest signs, and names with escapes."""
        encoding = self._stream.encoding
        if encoding:
            text = text.encode(encoding, _HANDLER).decode(encoding)
        try:
            self._stream.write(text)
        except OSError as error:
            self._lose(error)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """As of any stream."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """As of any stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        """Go on without; what is still to come, and what Python keeps in its buffer, goes nowhere."""
        self.fault = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if self.needed:
            raise SystemExit(UNREAD if error.errno in _CLOSED else 1)


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Within, ``sys.stdout`` and ``sys.stderr`` take everything (:class:`Output`).

    At the end, a full disk under the output is an error (exit code 1), where the command had none of its own.
    """
    _fill_standard_files()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Output(stream or open(os.devnull, "w", encoding="utf-8")) for stream in before)
    out = sys.stdout
    code: Any = None
    try:
        yield
    except SystemExit as ended:
        code = ended.code
        raise
    finally:
        out.flush()
        full = out.fault is not None and out.fault.errno not in _CLOSED
        if full:
            print(f"error: standard output: {out.fault.strerror}", file=sys.stderr)
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
        if full and not code:
            sys.exit(1)


def _fill_standard_files() -> None:
    """A file that is opened while 0, 1 or 2 is closed gets that number, and what libraries print goes into
    it."""
    while True:
        number = os.open(os.devnull, os.O_RDWR)
        if number > 2:
            os.close(number)
            return
        os.set_inheritable(number, True)


def end_when_unread() -> None:
    """Of a command that only shows things: end quietly (exit code 141) as soon as nobody reads them."""
    if isinstance(sys.stdout, Output):
        sys.stdout.needed = True


def say_line(text: str, err: bool = False) -> None:
    """Print a line with names in it that came from files: what would break it or steer a terminal is escaped.

    Args:
        text: the line.
        err: whether it goes to standard error.
    """
    typer.echo(printable(text, len(text)), err=err)


def say_json(value: Any) -> None:
    """Print JSON; what the encoding does not hold is escaped, so that a reader gets every character back."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    print(json.dumps(value, indent=1, ensure_ascii=not unicode))
