"""What is told of data: counted things, the first of many faults, and faults that may pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import MOST_FAULTS, UserError, raise_all


def worded(number: int, one: str, more: str = "") -> str:
    """The words that go with a number.

    Args:
        number: how many.
        one: what one of them is called, and whatever depends on the number (``picture is``).
        more: what several are called; by default with an s behind.
    """
    return one if number == 1 else more or f"{one}s"


def counted(number: int, one: str, more: str = "") -> str:
    """``1 class``, ``2 classes``; as :func:`worded`, with the number."""
    return f"{number} {worded(number, one, more)}"


def but_for_case(name: str, names: Iterable[str]) -> str | None:
    """The first name that differs from another one in nothing but upper and lower case."""
    return next((other for other in names if other != name and other.casefold() == name.casefold()), None)


class Passing(UserError):
    """A picture that could not be read for a reason that need not last and lies outside it: a disk, a
    permission, too little memory."""


class Faults:
    """Faults of one input: the first twenty are told, the others counted, so that a file of another kind
    fills neither a screen nor the memory.

    Args:
        where: the file, folder or part that they are in.
        more: how many there are beside those that will be added.
    """

    def __init__(self, where: object, more: int = 0) -> None:
        self._where, self._more = where, more
        self._told: list[str] = []

    def add(self, *faults: str) -> None:
        """Keep sentences, as long as they will be told."""
        kept = faults[: MOST_FAULTS - len(self._told)]
        self._told += kept
        self._more += len(faults) - len(kept)

    def refuse(self) -> None:
        """Raise them as one error, where there are any.

        Raises:
            UserError: with a line each, and one that says how many more there are.
        """
        more = f"{self._where}: {counted(self._more, 'more fault')}, these are {MOST_FAULTS} of them"
        raise_all([*self._told, *([more] if self._more else [])])


def some(names: Sequence[str]) -> str:
    """The first three of some names, and how many there are."""
    return ", ".join(map(repr, names[:3])) + (f" … ({len(names)} in all)" if len(names) > 3 else "")
