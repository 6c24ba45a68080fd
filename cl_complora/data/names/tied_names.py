"""Class names that are different texts and the same words to CLIP: their logits are equal for ever."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

from ...config.loading import Located
from ...config.scenario import Scenario
from ...errors import raise_all

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


def refuse_ties(located: Located[Scenario], names: dict[str, list[tuple[str, ...]]]) -> None:
    """Refuse two class names of one label space that CLIP cannot tell apart.

    Args:
        located: the scenario.
        names: section → class names of each of its entries.

    Raises:
        UserError: naming both.
    """
    spaces = {(kind, index): classes for kind in names for index, classes in enumerate(names[kind])}
    if located.value.protocol == "class-incremental":
        together = [name for classes in names["tasks"] for name in classes]
        spaces[("tasks",)] = tuple(dict.fromkeys(together))
    faults = []
    for (kind, *index), classes in spaces.items():
        pair = tied(classes)
        if pair is not None:
            path = (kind,) if kind == "reference" else (kind, *index)
            problem = f"classes {pair[0]!r} and {pair[1]!r} are the same words to CLIP"
            faults.append(
                located.fault(path, f"{problem}, which can never tell them apart; merge or rename one")
            )
    raise_all(list(dict.fromkeys(faults)))
