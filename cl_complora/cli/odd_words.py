"""Words of a command line that are refused before anything is done: names that are not UTF-8, which no file
of ours could hold, and empty ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..errors import UserError
from ..files import is_utf8

# A file whose name holds a line break could not be told in one line.
_MOST = 200


def odd_name(text: str) -> str:
    """The sentence that refuses such a name (or a text around it)."""
    at = next(place for place, character in enumerate(text) if not is_utf8(character))
    shown = text[max(0, at - _MOST) : at + _MOST]
    try:
        os.fsencode(text).decode("utf-8")
    except UnicodeError:
        return f"{shown}: the name is not UTF-8 and could not be written down; rename the file or folder"
    known = sys.getfilesystemencoding()
    return f"{shown}: is UTF-8, but Python takes names for {known} here; set PYTHONUTF8=1 or a UTF-8 locale"


def refuse_odd_words(words: Sequence[str]) -> None:
    """Refuse a command line, or a working folder, that is not UTF-8, and a command line with an empty word.

    An empty one is of a shell's variable that is not set. As a path it would be the working folder, whose
    pictures nobody asked about.

    Raises:
        UserError: with the word, its odd bytes as ``\\udcXX``, or the option or place of the empty one.
    """
    try:
        here = os.getcwd()
    except OSError:  # deleted meanwhile; said by what needs it
        here = ""
    for word in (*words, here):
        if not is_utf8(word):
            raise UserError(odd_name(word))
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        if equals and not value and option.startswith("--"):
            raise UserError(f"{option} '': must not be empty")
        if not word:
            before = words[place - 1] if place else ""
            # Whether an option takes a value is not known here.
            after = f", after {before}" if before.startswith("-") and before.strip("-") else ""
            raise UserError(f"word {place + 1} of the command{after}: must not be empty")
