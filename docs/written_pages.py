"""What the pages that are written by scripts have in common: where they go, wrapped paragraphs, tables."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill


def output(name: str) -> Path:
    """The page: the first argument of the script, or the one in docs/."""
    return Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / name


def prose(text: str) -> str:
    """Paragraphs that are parted by empty lines, wrapped; code and tables as they are."""
    return "\n\n".join(
        part if part.startswith(("    ", "|", "#")) else wrapped(part)
        for part in text.strip("\n").split("\n\n")
    )


def wrapped(paragraph: str) -> str:
    """One paragraph, or one entry of a list, in lines of 118 characters."""
    indent = "  " if paragraph.startswith("* ") else ""
    words = " ".join(paragraph.split())
    return fill(words, 118, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def cell(text: str) -> str:
    """Text that a table can hold; a dash for none."""
    return text.replace("|", "\\|") or "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(cell, row))} |" for row in rows)])
