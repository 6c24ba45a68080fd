"""Files of JSON: one value, or lines of values, whatever their names say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import json_lines, parse_json, read_text

# What files of JSON lines are called, where they are not called .json.
LINES = (".jsonl", ".ndjson", ".jsonlines")


def json_or_lines(file: Path, most: int, most_of_lines: int) -> tuple[Any, Iterator[tuple[int, Any]] | None]:
    """The value that a ``.json`` file is, or number and value of its lines: many call JSON lines so, too.

    Args:
        file: the file.
        most: bytes that one value may have.
        most_of_lines: bytes that lines may have, which are read one at a time.

    Returns:
        The value and None, or None and the lines.

    Raises:
        UserError: for a file that cannot be read, is too large, or is neither.
    """
    text = read_text(file, most)
    try:
        return parse_json(text), None
    except ValueError as error:
        if not _begins_with_an_object(text):
            raise UserError(f"{file}: cannot be read as JSON: {error}") from None
    return None, json_lines(file, most_of_lines)


def _begins_with_an_object(text: str) -> bool:
    """Whether the first line is a JSON object by itself."""
    try:
        return isinstance(parse_json(text.lstrip().partition("\n")[0]), dict)
    except ValueError:
        return False
