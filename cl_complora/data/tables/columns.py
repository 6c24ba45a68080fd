"""Which column of a table names the picture, which its class and which its part: by the usual names, or as
the source says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import PurePosixPath
from typing import Any

from ...config.yaml_lines import shown
from ..images.picture_files import image_suffixes
from ..names.split_names import role_of

_PARTS = ("train", "validation", "test")
# Columns of yes and no: what yes means. No means the training part, or the test where yes does.
_FLAGS = {
    "train": "istrain istraining istrainingimage intrain trainflag train training".split(),
    "validation": "isvalid isval isvalidation valid".split(),  # fastai's tables
    "test": "istest istesting intest testflag test testing".split(),
}
_YES, _NO = frozenset("1 true t yes y".split()), frozenset("0 false f no n".split())
PATH, LABEL, SPLIT = "path", "label", "split"
# Names in small letters without what is neither letter nor digit, those that are surer in front: a column of
# a later row is asked only where none of an earlier one is there.
_USUAL: dict[str, tuple[frozenset[str], ...]] = {
    PATH: (
        frozenset({"path"}),
        frozenset(
            "image img picture photo file filename filepath imagepath imgpath picturepath imagefile imgfile"
            " imagefilename imagefilepath imagename imgname impath fname relpath relativepath".split()
        ),
        frozenset("id idcode imageid imgid pictureid photoid fileid name key".split()),
    ),
    LABEL: (
        frozenset({"label"}),
        frozenset(
            "labels class classname classlabel category categoryname species speciesname target targetname"
            " labelname breed diagnosis".split()
        ),
        frozenset("labelid classid categoryid classidx labelidx classindex targetid y".split()),
    ),
    SPLIT: (
        frozenset({"split"}),
        frozenset("set subset partition datasplit splitname splitset traintest".split()),
        frozenset(name for names in _FLAGS.values() for name in names),
        frozenset({"fold"}),
    ),
}


class Unclear(Exception):
    """Columns that do not say what a picture, its class or its part is.

    Args:
        problem: what is wrong, and what to say in the source.
        missing: whether columns are missing, and none stands for too much.
    """

    def __init__(self, problem: str, missing: bool = False) -> None:
        super().__init__(problem)
        self.missing = missing


@dataclass(frozen=True)
class Meaning:
    """Names of the columns, as the table has them.

    Attributes:
        path, label: the columns.
        split: the column; None where there is none, and a share is set apart for the test.
        guessed: which of them were recognised by another name than their own.
    """

    path: str
    label: str
    split: str | None
    guessed: tuple[str, ...] = ()

    def part(self, cell: Any) -> Any:
        """The cell of the split column, where it says yes or no (``is_valid``) as the name of a part."""
        role = self.flag
        if role is None or cell is None:
            return cell
        said = str(cell).strip().casefold().removesuffix(".0")
        if said in _NO:
            return other_than(role)
        return role if said in _YES else cell

    @cached_property
    def flag(self) -> str | None:
        """The part that the split column says yes or no to."""
        plain = _plain(self.split) if self.split is not None else ""
        return next((role for role, names in _FLAGS.items() if plain in names), None)

    def told(self) -> str | None:
        """What was taken for what; None where every column has its own name or was named in the source."""
        if not self.guessed:
            return None
        roles = " and ".join(
            f"{role} is read from the column {getattr(self, role)!r}" for role in self.guessed
        )
        return f"{roles}; columns: in the source chooses others"


def other_than(part: str) -> str:
    """What no means in a column whose yes means this part."""
    return "test" if part == "train" else "train"


def meaning(columns: Sequence[str], said: Mapping[str, str | None]) -> Meaning:
    """Which column is which.

    Args:
        columns: names as they stand in the table, in their order.
        said: column by ``path``, ``label`` and ``split``, None where the source does not say.

    Raises:
        Unclear: for a column that is missing, that stands there twice, or where several may be meant.
    """
    found: dict[str, str | None] = {}
    for role in (PATH, LABEL, SPLIT):
        named = said.get(role)
        found[role] = _said(columns, role, named) if named is not None else None
    taken = {name for name in found.values() if name is not None}
    guessed = []
    for role in (PATH, LABEL, SPLIT):
        if found[role] is None:
            found[role] = _recognised([name for name in columns if name not in taken], role)
            guessed += [role] if found[role] is not None and _plain(found[role]) != role else []
    missing = [role for role in (PATH, LABEL) if found[role] is None]
    if missing and any(PurePosixPath(str(name)).suffix.lower() in image_suffixes() for name in columns):
        raise Unclear(
            f"the first line must name the columns, path and label, and has a picture; {_found(columns)};"
            " put a line such as path,label above it",
            missing=True,
        )
    if missing:
        raise Unclear(
            f"the columns must be path, label and split, {' and '.join(missing)} missing; {_found(columns)};"
            f" name others in the source: columns: {{{missing[0]}: …}}",
            missing=True,
        )
    for name in found.values():
        if name is not None and list(columns).count(name) > 1:
            raise Unclear(f"the column {name} stands there twice")
    return Meaning(found[PATH] or "", found[LABEL] or "", found[SPLIT], tuple(guessed))


@lru_cache(maxsize=1000)
def split_of(value: str) -> str | None:
    """``train``, ``validation`` or ``test`` for what tables write, in any case; None for anything else."""
    role = role_of(value)
    return role if role in _PARTS else None


def label_names(columns: Sequence[str]) -> list[str]:
    """Columns that may hold class names, for whoever has read numbers from another one."""
    return [name for name in columns if _plain(name) in _USUAL[LABEL][1]]


def usual(columns: Sequence[str], role: str) -> list[str]:
    """The columns that are called by a usual name of ``path`` or ``label``: those of the surest kind."""
    if role in columns:
        return [role]
    meant = ([name for name in columns if _plain(name) in names] for names in _USUAL[role])
    return next(filter(None, meant), [])


def _said(columns: Sequence[str], role: str, named: str) -> str:
    if named in columns:
        return named
    close = [name for name in columns if name.strip().casefold() == named.strip().casefold()]
    if len(close) != 1:
        raise Unclear(f"columns.{role}: there is no column {shown(named)}; {_found(columns)}")
    return close[0]


def _recognised(columns: Sequence[str], role: str) -> str | None:
    if role in columns:
        return role
    for names in _USUAL[role]:
        meant = [name for name in columns if _plain(name) in names]
        if len(set(meant)) > 1:
            those = " and ".join(shown(name) for name in meant)
            raise Unclear(
                f"{role} may be any of the columns {those}; say which in the source:"
                f" columns: {{{role}: {meant[0]}}} ({_found(columns)})"
            )
        if meant:
            return meant[0]
    return None


def _found(columns: Sequence[str]) -> str:
    return f"found {', '.join(shown(name) for name in columns[:12])}{' …' if len(columns) > 12 else ''}"


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())
