"""Class names that are different texts and the same words to CLIP: their logits are equal for ever."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

# As CLIP's tokeniser cuts a text after lowering it: words, single digits, runs of other signs; white
# space goes.
_PIECES = re.compile(r"[^\W\d_]+|\d|(?:[^\s\w]|_)+")


def heard(name: str) -> tuple[str, ...]:
    """The pieces that CLIP's tokeniser makes of a name before it cuts words into smaller ones.

    Two names with equal pieces have equal tokens: case, Unicode's composed and decomposed forms, HTML
    entities and the amount of white space make no difference.
    """
    text = html.unescape(html.unescape(unicodedata.normalize("NFC", name)))
    return tuple(_PIECES.findall(unicodedata.normalize("NFC", text).lower()))


def tied(names: Sequence[str]) -> tuple[str, str] | None:
    """The first two names that CLIP cannot tell apart, or None."""
    first: dict[tuple[str, ...], str] = {}
    for name in names:
        other = first.setdefault(heard(name), name)
        if other != name:
            return other, name
    return None
