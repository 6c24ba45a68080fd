"""Sources that name their images in a file, and the first kind of it: tables (CSV, JSONL)."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from ...config.sources import ManifestSource
from ...config.yaml_lines import shown
from ...errors import MOST_FAULTS, UserError
from ...files import is_utf8
from ..division import UNDIVIDED, set_apart
from ..images.picture_files import image_suffixes
from ..images.pictures import Files
from ..items import Item
from ..labels import name_fault
from ..names.class_list import ClassList
from ..telling import Faults, but_for_case, counted, worded
from .columns import label_names, other_than, split_of
from .tables import Cells, Table, read_table


class Malformed(Exception):
    """A row or an entry that is not what it must be."""


@dataclass(frozen=True, slots=True)
class Row:
    """An image as a file lists it: which part it belongs to, None where the file does not say; its path below
    the root, and its class."""

    split: str | None
    key: str
    label: str


class Listed(Files):
    """Images by split, as a file lists them.

    Args:
        root: folder that image paths start from, and that no path or link leads out of.
        class_names: in label order.
        rows: images in the file's order, with their place among the classes.
        notes: what a user should know of how the file was read, a line each.
        place: where a row stands in the file, by its number among ``rows``; None where nobody knows.
    """

    prompts: list[str] | None = None

    def __init__(
        self,
        root: Path,
        class_names: Sequence[str],
        rows: Sequence[tuple[str, str, int]],
        notes: Sequence[str] = (),
        place: Callable[[int], str] | None = None,
    ) -> None:
        self.root, self.class_names, self.notes = root, list(class_names), list(notes)
        self._rows, self._place = rows, place
        self.divided = all(split != UNDIVIDED for split, *_ in rows)
        self._inside: dict[str, bool] = {}
        self._names: dict[str, dict[str, str]] = {}
        self._items: dict[str, list[Item]] = {}

    def items(self, split: str) -> list[Item]:
        """Images of a split by class, each class in the file's order.

        Raises:
            UserError: naming files that are not there and their rows, up to twenty.
        """
        if split not in self._items:
            found, absent = self._looked(split)
            # What else a row may mean is looked for on the disk, and so only for those that are told.
            faults = Faults(f"{self.root}, {split} part", max(0, len(absent) - MOST_FAULTS))
            faults.add(*(self._told(*one) for one in absent[:MOST_FAULTS]))
            faults.refuse()
            self._items[split] = found
        return self._items[split]

    def absent(self, name: str) -> str:
        """What to say of a class without training pictures: where it stands, and what may be it."""
        label = self.class_names.index(name)
        row = next((row for row, (_, _, one) in enumerate(self._rows) if one == label), None)
        if row is None:
            return ""
        told = f"; it stands in {self._place(row)}" if self._place is not None else ""
        alike = but_for_case(name, self.class_names)
        return told if alike is None else f"{told}, and {alike!r} is another class"

    def present(self, split: str) -> tuple[list[Item], list[str]]:
        """As :meth:`items` without the files that are not there, and a line for each of those."""
        if split in self._items:  # where all of them were
            return self._items[split], []
        found, absent = self._looked(split)
        return found, [self._told(*one) for one in absent]

    def _looked(self, split: str) -> tuple[list[Item], list[tuple[int, str]]]:
        """Images of a split; number and problem of every row whose file cannot be used."""
        found, absent = [], []
        for order, (where, key, label) in enumerate(self._rows):
            if where == split:
                try:
                    found.append(Item(label, key, self._size(key), order))
                except Malformed as fault:
                    absent.append((order, sys.intern(str(fault))))
        return sorted(found, key=lambda item: item.label), absent

    def _told(self, order: int, problem: str) -> str:
        key = self._rows[order][1]
        where = f"{self._place(order)}: " if self._place is not None else ""
        absent = problem == os.strerror(errno.ENOENT)
        hint = _meant(str(self.root), key, self._names) if absent else ""
        return f"{where}{self.root / key}: {problem}{hint}"

    def _size(self, key: str) -> int:
        path = os.path.join(self.root, key)
        try:
            found, place = os.lstat(path), os.path.dirname(path)
            if stat.S_ISLNK(found.st_mode):
                found, place = os.stat(path), path
        except OSError as error:
            raise Malformed(error.strerror or str(error)) from None
        if not self._is_inside(place):
            raise Malformed(f"leads out of the root {self.root}, to {os.path.realpath(path)}")
        if not stat.S_ISREG(found.st_mode):
            raise Malformed("is no regular file")
        return found.st_size

    def _is_inside(self, place: str) -> bool:
        if place not in self._inside:
            root = os.path.realpath(self.root)
            self._inside[place] = os.path.commonpath([root, os.path.realpath(place)]) == root
        return self._inside[place]


def _meant(root: str, key: str, names: dict[str, dict[str, str]]) -> str:
    """What to say where a table lists other names than its files have: without their end, in other letters,
    with spaces around them, or from a folder above.

    Args:
        root, key: folder of the table's files, and the path of one that is not there.
        names: folder → names in it, by what they are without capitals; filled as folders are asked for.
    """
    path = os.path.join(root, key)
    if PurePosixPath(path).suffix.lower() not in image_suffixes():
        ends = [end for known in sorted(image_suffixes()) for end in (known, known.upper())]
        there = next((end for end in ends if os.path.exists(path + end)), None)
        if there:
            return f"; there is one that ends in {there}: suffix: {there} in the source"
    parts = [part.strip() for part in key.split("/")]
    if "/".join(parts) != key and os.path.exists(os.path.join(root, *parts)):
        return "; there is one without the spaces around its name"
    above = os.path.dirname(os.path.abspath(root))
    if os.path.exists(os.path.join(above, key)):
        return f"; there is one from the folder above: root: {above}"
    place = os.path.dirname(path)
    if place not in names:
        names[place] = {}
        for name in os.listdir(place) if os.path.isdir(place) else ():
            names[place].setdefault(name.casefold(), name)
    same = names[place].get(os.path.basename(key).casefold())
    return f"; there is {same}" if same else ""


def open_manifest(config: ManifestSource, folder: Path) -> Listed:
    """A table of path, label and split; labels are class names or, with ``classes``, places among them.

    Raises:
        UserError: naming file and line of every fault, up to twenty.
    """
    file = folder / Path(config.file).expanduser()
    root = folder / Path(config.root).expanduser() if config.root is not None else file.parent
    table = read_table(config, file)
    refuse_no_folder(root)
    check = _Check(config, root)
    rows, numbers, seen, faults = [], array("Q"), set(), Faults(file)
    for number, cells in table.rows:
        try:
            checked = check(cells)
            if checked.key in seen:
                raise Malformed(f"{shown(checked.key)} is named a second time")
            seen.add(checked.key)
            rows.append(checked)
            numbers.append(number)
        except Malformed as fault:
            faults.add(f"{table.place(number)}: {fault}")
    faults.refuse()
    if not rows:
        raise UserError(f"{file}: names no image")
    names = config.classes or sorted({row.label for row in rows})
    position = {name: index for index, name in enumerate(names)}
    notes = table.notes + _of_numbers(table, names, check.by_number)
    if all(row.split is None for row in rows):
        listed, note = _undivided(config, names, rows)
        notes.append(note)
    else:
        blank, note = _blank(table, rows)
        notes += note
        listed = [(row.split or blank, row.key, position[row.label]) for row in rows]
    # Where a table is divided here, every row stands in it twice: in its part, and undivided.
    return as_listed(
        file, root, names, listed, lambda order: table.place(numbers[order % len(numbers)]), notes
    )


def _blank(table: Table, rows: Sequence[Row]) -> tuple[str, list[str]]:
    """The part of the rows that name none, and what to say of them."""
    said = Counter(row.split for row in rows)
    blank = said.pop(None, 0)
    if not blank:
        return "train", []
    does = f"{counted(blank, 'row')} {worded(blank, 'names', 'name')} no part"
    are = worded(blank, "is", "are")
    if set(said) != {table.flag}:
        return "train", [f"{does} and {are} trained on"]
    part = other_than(table.flag)
    use = "tested on" if part == "test" else "trained on"
    return part, [f"{does}, which is read as no since the others say yes, and {are} {use}"]


def _undivided(
    config: ManifestSource, names: Sequence[str], rows: Sequence[Row]
) -> tuple[list[tuple[str, str, int]], str]:
    """Rows of a table that names no test: a share of every class is set apart, as of class folders; and what
    to say of it."""
    testing = set_apart(((row.label, row.key) for row in rows), config.test_fraction)
    position = {name: index for index, name in enumerate(names)}
    listed = [("test" if row.key in testing else "train", row.key, position[row.label]) for row in rows]
    listed += [(UNDIVIDED, row.key, position[row.label]) for row in rows]
    unsaid = "no column says which rows are for the test"
    if config.test_fraction == 1:
        return listed, f"{unsaid}: all are"
    share = (
        f"{100 * config.test_fraction:g} % of every class is set apart, the same for every seed"
        " (test_fraction; or a column split of train and test)"
    )
    return listed, f"{unsaid}: {share}"


def refuse_no_folder(root: Path, what: str = "paths") -> None:
    """Refuse a root that is none.

    Args:
        what: of the pictures starts from it.

    Raises:
        UserError: saying whether it is missing or a file.
    """
    if not root.is_dir():
        problem = "is a file, and" if root.exists() else "there is no such folder, though"
        raise UserError(f"{root}: {problem} the {what} of the pictures start from it (root in the source)")


def as_listed(
    file: Path,
    root: Path,
    class_names: Sequence[str],
    rows: Sequence[tuple[str, str, int]],
    place: Callable[[int], str],
    notes: Sequence[str] = (),
) -> Listed:
    """A source that tells whether the validation part has to be its test, as that of folders has."""
    parts = {split for split, *_ in rows}
    if "validation" in parts and "test" not in parts:
        notes = [*notes, "the validation pictures serve as the test, since there is no other"]
        rows = [("test" if split == "validation" else split, *row) for split, *row in rows]
    return Listed(root, class_names, rows, [f"{file}: {note}" for note in notes], place)


def _of_numbers(table: Table, names: Sequence[str], by_number: bool) -> list[str]:
    """What to say of labels that are numbers; that such class names mean nothing is told of any source."""
    if by_number:
        return [f"labels are numbers, which count from 0 in classes: 0 is {names[0]!r}"]
    others = [name for name in label_names(table.columns) if name != table.label]
    if others and all(name.isdecimal() for name in names):
        return [
            f"labels are numbers, and the column {others[0]!r} may hold the names: "
            f"columns: {{label: {others[0]}}}"
        ]
    return []


class _Check:
    """Makes an image of a table's row.

    Args:
        config: the source.
        root: folder that its paths start from.

    Attributes:
        by_number: whether a label so far was the place of a class and not its name.
    """

    def __init__(self, config: ManifestSource, root: Path) -> None:
        self._roots = roots_of(root)
        self._suffix = config.suffix
        self._classes = ClassList(config.classes) if config.classes is not None else None
        self.by_number = False
        self._fault = cache(name_fault)  # a class has many rows

    def __call__(self, cells: Cells | str) -> Row:
        """The image that a row names.

        Args:
            cells: path, label and split, or what is wrong with the row.

        Raises:
            Malformed: saying what is wrong with it.
        """
        if isinstance(cells, str):
            raise Malformed(cells)
        path, label, split = _number_as_text(cells[0]), _number_as_text(cells[1]), cells[2]
        if not path or not label:
            raise Malformed("path or label is empty")
        if not isinstance(path, str) or not isinstance(label, str):
            raise Malformed("path must be a text, and label a text or a number")
        part = split_of(split) if split and isinstance(split, str) else None
        if part is None and split not in (None, ""):
            raise Malformed(f"split must be train, validation or test, got {shown(split)}")
        if self._classes is not None:
            label = self._named(label)
        elif fault := self._fault(label):
            raise Malformed(f"{fault}{'; is a quote never closed?' if chr(10) in label else ''}")
        key = inside(path, self._roots)
        if self._suffix and PurePosixPath(key).suffix.lower() not in image_suffixes():
            key += self._suffix
        return Row(part, key, sys.intern(label))

    def _named(self, label: str) -> str:
        place = self._classes.place(label)
        if place is None:
            counted = f"; numbers count from 0 to {len(self._classes.names) - 1}" if label.isdecimal() else ""
            raise Malformed(f"label {shown(label)} is none of the source's classes{counted}")
        name = self._classes.names[place]
        self.by_number = self.by_number or name != label
        return name


def _number_as_text(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():  # as pandas writes a column with gaps
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def roots_of(root: Path) -> tuple[str, ...]:
    """What absolute paths below the root begin with."""
    return tuple(
        dict.fromkeys(f"{place.rstrip('/')}/" for place in (os.path.abspath(root), os.path.realpath(root)))
    )


def inside(path: str, roots: Sequence[str]) -> str:
    """A path that stays below the root, from there.

    Raises:
        Malformed: for one that leaves it, or that no file can have.
    """
    whole, path = path, path.replace("\\", "/")
    if re.match(r"[A-Za-z]{2,}://", path):
        raise Malformed(
            f"path must be a file, not an address, got {shown(whole)}; download the pictures first"
        )
    if re.match(r"[A-Za-z]:/", path):
        raise Malformed(f"path must lie below the root, got {shown(whole)}, a path of Windows")
    if path.startswith("/"):
        path = next((path[len(root) :] for root in roots if path.startswith(root)), path)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or not parts:
        raise Malformed(f"path must lie below the root, got {shown(whole)}")
    if "\0" in path or not is_utf8(path) or len(path) > 4096:
        raise Malformed(f"path must be the name of a file, got {shown(whole)}")
    return "/".join(parts)
