"""Text on a page of Markdown: names and reasons come from files, and stay what they are."""

from __future__ import annotations

import html
import re

from ..errors import printable
from .elements import Cell

# What Markdown makes something of; an underscore within a word it leaves alone.
_SIGNS = re.compile(r"[\\|*`\[\]~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def escaped(text: str) -> str:
    """A text in one line, whatever Markdown and HTML would make of it; also within a cell of a table."""
    return _SIGNS.sub(lambda found: f"&#{ord(found[0])};", html.escape(_in_one_line(text), quote=False))


def in_markdown(cell: Cell) -> str:
    """What a cell shows; brackets around an interval, which hold no name, stay."""
    return escaped(cell.text) if cell.value is None else cell.text


def code(text: str) -> str:
    """A text as code within a line."""
    return f"`{_in_one_line(text).replace('`', chr(39))}`"


def _in_one_line(text: str) -> str:
    return printable(" ".join(text.split()), len(text))
