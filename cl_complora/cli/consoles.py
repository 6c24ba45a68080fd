"""Where tables go: terminals as they are; all else gets plain text, no frames and no trailing blanks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group
from rich.segment import Segment
from rich.table import Table

# Nothing is cut or wrapped in a file: what reads it has no edge.
_WIDE = 10_000

# Control characters but the end of a line, and marks that turn the writing direction of all that follows.
_STEERS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class LogConsole(Console):
    """A console of which files and pipes get plain lines, and nobody what would steer a terminal: names in
    tables come from files."""

    def render(self, *given: Any, **options: Any) -> Iterator[Segment]:
        """As in the base class."""
        for part in super().render(*given, **options):
            yield part if part.control else part._replace(text=_STEERS.sub(_escaped, part.text))

    def print(self, *objects: Any, **options: Any) -> None:
        """As in the base class."""
        if self.is_terminal:
            super().print(*objects, **options)
            return
        for table in _tables(objects):
            table.box, table.title_justify, table.padding = None, "left", (0, 2, 0, 0)
        with self.capture() as captured:
            super().print(*objects, **options)
        self.file.write("\n".join(line.rstrip() for line in captured.get().split("\n")))
        self.file.flush()


def _tables(objects: Any) -> Iterator[Table]:
    for one in objects:
        if isinstance(one, Table):
            yield one
        elif isinstance(one, Group):
            yield from _tables(one.renderables)


def log_console() -> Console:
    """Where tables go."""
    console = LogConsole()
    return console if console.is_terminal else LogConsole(width=_WIDE)
