"""Pictures that stand in the rows of a Hugging Face table: what its parts and classes are, and how one is
read."""

from __future__ import annotations

import errno
import io
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ...config.hub_sources import HuggingFaceSource, ParquetSource
from ...config.yaml_lines import shown
from ...errors import UserError
from ..division import UNDIVIDED, set_apart
from ..images.pictures import Pictures
from ..items import Item
from ..labels import MAX_NAME, name_fault
from ..names.class_list import ClassList
from ..telling import Faults, Passing, counted
from .hub_columns import HubColumns

if TYPE_CHECKING:
    import pyarrow
    from torch import Tensor

    from ..images.pixels import Pixels

# Seconds that a table may take to tell the sizes of its pictures before somebody asks where they went.
LONG = 10.0
# Characters of a picture's own name that become part of its key.
_LONGEST = 120

Value = bytes | None


def refuse_without(package: str, kind: str) -> None:
    """Refuse a kind of source whose package is not installed.

    Raises:
        UserError: naming the extra.
    """
    if find_spec(package) is None:
        raise UserError(
            f"kind: {kind} needs the package {package}, which is not installed: "
            "pip install 'cl_complora[datasets]'"
        )


class Rows(ABC):
    """One table: a Parquet file, or a split of a data set.

    Attributes:
        name: what it is called in keys.
        place: what it is called in messages.
        stamp: changes when the table does.
    """

    name: str
    place: str
    stamp: str

    @abstractmethod
    def schema(self) -> pyarrow.Schema:
        """Names and kinds of the columns, with what ``datasets`` declares of them."""

    @abstractmethod
    def labels(self, column: str) -> list[Any]:
        """The labels of all rows."""

    @abstractmethod
    def stored(self, column: str) -> list[tuple[int | None, str]]:
        """Of every row: bytes of its picture, None where there is none, and the name that it has, if any."""

    @abstractmethod
    def picture(self, column: str, row: int) -> bytes:
        """What a row holds.

        Raises:
            OSError, ValueError: where it cannot be read.
        """

    def shared(self, labels: Iterable[Any], column: str) -> list[Any]:
        """Labels in their order, equal ones as one object: a table may hold once what stands in every row.

        Raises:
            UserError: naming the row of a text that is longer than a class name may be.
        """
        found, known = [], {}
        for row, label in enumerate(labels):
            if isinstance(label, str) and len(label) > MAX_NAME:
                raise UserError(f"{self.located(row, column)}: {name_fault(label)}")
            found.append(known.setdefault(label, label))
        return found

    def located(self, row: int, column: str) -> str:
        """A cell, as messages call it."""
        return f"{self.place}: row {row}, column {column!r}"


class HubPictures(Pictures):
    """Pictures of tables, each of one class.

    Args:
        parts: the tables of ``train``, ``test`` and ``validation``. Without a test, the validation part
            serves as one, or a share of every class is set apart.
        columns: of each table.
        config: the source.
        root: folder of the tables, or what they are called where they lie in a cache; tells them from others
            of the same names.

    Attributes:
        notes: what a user should know of how they were read, a line each.

    Raises:
        UserError: naming table, row and column of labels that are none of the classes.
    """

    prompts: list[str] | None = None

    def __init__(
        self,
        parts: Mapping[str, Sequence[Rows]],
        columns: Mapping[str, HubColumns],
        config: ParquetSource | HuggingFaceSource,
        root: Path | str,
    ) -> None:
        self.root, self.notes = root, []
        self._columns = columns
        self._share = config.test_fraction
        self._places: dict[str, tuple[Rows, int]] = {}
        self._absent: dict[str, str] = {}
        self._rows = 0
        tables = [rows for part in parts.values() for rows in part]
        first = tables[0].place
        labelled = {rows.name: rows.labels(columns[rows.name].label) for rows in tables}
        self.class_names, known = self._classes(tables, labelled, config)
        faults = Faults(first)
        for rows in tables:
            for fault in _faults(rows, columns, labelled[rows.name], known, len(self.class_names)):
                faults.add(fault)
        faults.refuse()
        self._items = {
            part: [item for rows in held for item in self._listed(rows, labelled[rows.name], known)]
            for part, held in parts.items()
        }
        if not any(self._items.values()):
            raise UserError(
                f"{first}: {'this table holds' if len(tables) == 1 else 'the tables hold'} no rows"
            )
        if "test" not in self._items:
            self._test_apart(first)

    def _classes(
        self, tables: Sequence[Rows], labelled: Mapping[str, Sequence[Any]], config: Any
    ) -> tuple[list[str], dict[Any, int]]:
        """Class names, and the class of every label that may stand there."""
        first = tables[0]
        names = self._columns[first.name].names
        for rows in tables[1:]:
            if self._columns[rows.name].names != names:
                raise UserError(f"{rows.place}: declares other class names than {first.place}")
        found = {label for labels in labelled.values() for label in labels}
        numbers = all(isinstance(label, int) for label in found - {None})
        if config.classes is None and names is None and numbers:
            raise UserError(
                f"{first.place}: labels are numbers without names; name the classes with classes: [...] in"
                " the source that the scenario names"
            )
        chosen = list(config.classes or names or sorted(label for label in found if isinstance(label, str)))
        if numbers:
            if config.classes is not None and names is None:
                self.notes.append(
                    f"{first.place}: labels are numbers, which count from 0 in classes: 0 is {chosen[0]!r}"
                )
            return chosen, {place: place for place in range(len(chosen))}
        listed = ClassList(chosen)
        return chosen, {
            label: place
            for label in found
            if isinstance(label, str) and label and (place := listed.place(label)) is not None
        }

    def _listed(self, rows: Rows, labels: Sequence[Any], known: Mapping[Any, int]) -> Iterator[Item]:
        column = self._columns[rows.name].image
        began = time.monotonic()
        stored = rows.stored(column)
        if (took := time.monotonic() - began) > LONG:
            self.notes.append(
                f"{rows.place}: its {len(stored):,} pictures were read through once for their sizes, which"
                f" took {took:.0f} s; they are remembered where there is a cache"
            )
        if len(stored) != len(labels):
            raise UserError(f"{rows.place}: has {len(labels)} labels for {len(stored)} pictures")
        for row, (label, (size, name)) in enumerate(zip(labels, stored, strict=True)):
            key = f"{rows.name}/{row}{_tail(name)}"
            self._places[key] = rows, row
            self._rows += 1
            if size is None:
                self._absent[key] = f"{rows.located(row, column)}: holds no picture"
            yield Item(known[label], key, size or 0, self._rows)

    def _test_apart(self, first: str) -> None:
        if self._items.get("validation"):
            self.notes.append(f"{first}: the validation pictures serve as the test, since there is no other")
            self._items["test"] = self._items.pop("validation")
            return
        every = self._items["train"]
        testing = set_apart(((self.class_names[item.label], item.key) for item in every), self._share)
        self._items |= {
            "train": [item for item in every if item.key not in testing],
            "test": [item for item in every if item.key in testing],
            UNDIVIDED: every,
        }
        self.notes.append(
            f"{first}: there is no test part: {100 * self._share:g} % of every class is set apart, the same"
            " for every seed (test_fraction)"
        )

    def items(self, split: str) -> list[Item]:
        """Images of a split in the order of the tables.

        Raises:
            UserError: naming rows without a picture, up to twenty.
        """
        found, absent = self.present(split)
        faults = Faults(f"{self.root}, {split} part")
        faults.add(*absent)
        faults.refuse()
        return found

    def present(self, split: str) -> tuple[list[Item], list[str]]:
        """As :meth:`items` without the rows that hold no picture, and a line for each of those."""
        every = self._items.get(split, [])
        if not self._absent:
            return list(every), []
        absent = [self._absent[item.key] for item in every if item.key in self._absent]
        return [item for item in every if item.key not in self._absent], absent

    def stamp(self, item: Item) -> str:
        """When the table, which the key names, was last written."""
        return self._places[item.key][0].stamp

    def stored(self, item: Item) -> BinaryIO:
        """A picture, in memory, where it is not too large for one."""
        from ..images.pixels import MAX_BYTES

        if (item.size or 0) > MAX_BYTES:
            raise OSError(errno.EFBIG, f"is larger than {MAX_BYTES:,} bytes", item.key)
        rows, row = self._places[item.key]
        try:
            return io.BytesIO(rows.picture(self._columns[rows.name].image, row))
        except ValueError as error:
            raise OSError(str(error)) from None

    def picture(self, item: Item, pixels: Pixels) -> Tensor:
        """The picture of one row."""
        rows, row = self._places[item.key]
        where = rows.located(row, self._columns[rows.name].image)
        try:
            content = self.stored(item).read()
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise UserError(f"{where}: cannot be read as an image: {error.strerror}") from None
            raise Passing(f"{where}: cannot be read: {error.strerror or error}") from None
        return pixels.decode(content, where)

    def load(self, items: Sequence[Item], pixels: Pixels) -> Tensor:
        """As in the base class; rows are decoded in the order in which they stand, so that no part of a
        table is read twice."""
        order = sorted(range(len(items)), key=lambda place: items[place].order)
        decoded = super().load([items[place] for place in order], pixels)
        back = [0] * len(order)
        for position, place in enumerate(order):
            back[place] = position
        return decoded[back]


def picture_of(cell: Any) -> tuple[Value, str]:
    """Bytes and name of a cell, which is bytes or ``{bytes, path}``."""
    if isinstance(cell, dict):
        content, name = cell.get("bytes"), cell.get("path")
        return content, name if isinstance(name, str) else ""
    return cell, ""


def _tail(name: str) -> str:
    """What a picture's own name adds to its key: lists that name pictures find it by that."""
    if name.startswith(".") and len(name) < 6:
        return name
    base = os.path.basename(name.replace("\\", "/"))
    return f"/{base}" if base.isprintable() and 0 < len(base) <= _LONGEST else ""


def _faults(
    rows: Rows,
    columns: Mapping[str, HubColumns],
    labels: Sequence[Any],
    known: Mapping[Any, int],
    classes: int,
) -> Iterator[str]:
    column = columns[rows.name].label
    for row, label in enumerate(labels):
        if label not in known:
            where = rows.located(row, column)
            if label is None or label == "":
                yield f"{where}: holds no label"
            else:
                hint = "; numbers count from 0" if isinstance(label, int) else ""
                if label == -1:
                    hint = ", and stands for a label that is kept back"
                there = counted(classes, "class", "classes")
                yield f"{where}: label {shown(label)} is none of the source's {there}{hint}"
