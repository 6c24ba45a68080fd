"""Class names in label order, and labels that are names or places among them."""

from __future__ import annotations

from collections.abc import Sequence


class ClassList:
    """Which class a label means.

    A number is the place of a class, counted from 0, unless some class is called by a number: who names his
    classes ``"1"`` and ``"2"`` does not mean the second one by ``1``.

    Args:
        names: in label order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._places = {name: place for place, name in enumerate(self.names)}
        self._by_number = not any(name.isdecimal() for name in self.names)

    def place(self, label: str) -> int | None:
        """The class of this name, or at this place; None where there is none."""
        place = self._places.get(label)
        if place is None and self._by_number and label.isdecimal() and len(label) < 10:
            place = int(label) if int(label) < len(self.names) else None
        return place
