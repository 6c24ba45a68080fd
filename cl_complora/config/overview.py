"""The shipped strategies at a glance, kind by kind, as lists and the documentation show them."""

from __future__ import annotations

from dataclasses import dataclass

from .about import KINDS, UNTOLD, About, Checked
from .catalog import description, shipped
from .loading import load_strategy
from .trained import trained


@dataclass(frozen=True)
class Entry:
    """One strategy.

    Attributes:
        name: of the file.
        summary: what it is, in a sentence: the comment that opens the file.
        description: of the file, in a few words.
        about: of the file, if it has one.
        trained: what moves (:func:`~cl_complora.config.trained.trained`).
    """

    name: str
    summary: str
    description: str
    about: About | None
    trained: str

    @property
    def kind(self) -> str:
        """As the file has it; empty where it says nothing."""
        return self.about.kind if self.about is not None else ""

    @property
    def title(self) -> str:
        """Of the kind, for people."""
        return KINDS[self.about.kind] if self.about is not None else UNTOLD

    @property
    def checked(self) -> Checked:
        """What the method was checked against."""
        return self.about.checked if self.about is not None else "none"

    @property
    def paper(self) -> str:
        """Whose method it is; empty where it is nobody's."""
        return self.about.paper if self.about is not None else ""


def entries() -> list[Entry]:
    """All shipped strategies, by kind and then by name."""
    found = []
    for name, path in shipped("strategy").items():
        strategy = load_strategy(str(path)).value
        summary = description(path).partition(" Run: ")[0].rstrip(".")
        found.append(Entry(name, summary, strategy.description, strategy.about, trained(strategy)))
    order = [*KINDS, ""]
    return sorted(found, key=lambda entry: (order.index(entry.kind), entry.name))
