"""Tables of pictures read row by row: CSV with any separator, TSV, JSON lines, and one JSON list."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...config.sources import ManifestSource
from ...config.yaml_lines import shown
from ...errors import UserError
from ...files import json_lines, read_lines
from .columns import LABEL, PATH, SPLIT, Meaning, Unclear, meaning, split_of
from .json_files import LINES, json_or_lines

# A million rows take about a hundred megabytes. What is one JSON value takes up to 24 times its size in
# memory.
MAX_BYTES = 2**28
MAX_JSON = 2**26
_OTHERS = (".xlsx", ".xls", ".ods", ".parquet", ".feather", ".arrow", ".pkl", ".pickle", ".npy", ".npz")
_SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a |"}
_OBJECT = "must be a JSON object with path, label and split"

Cells = tuple[Any, Any, Any]


@dataclass
class Table:
    """A table that is being read.

    Attributes:
        file: where from.
        rows: number of every row and its path, label and split as they stand there, or what is wrong with it.
        columns: names of all columns.
        label: the one that classes are read from.
        flag: the part that the column of splits says yes or no to; None where it names parts, or is none.
        listed: whether rows are entries of one JSON list, counted from 0, and not lines.
        notes: what a user should know of how the columns were read; complete once the rows are.
    """

    file: Path
    rows: Iterator[tuple[int, Cells | str]] = field(default_factory=lambda: iter(()))
    columns: Sequence[str] = ()
    label: str = LABEL
    flag: str | None = None
    listed: bool = False
    notes: list[str] = field(default_factory=list)

    def place(self, number: int) -> str:
        """Where a row stands."""
        return f"{self.file}[{number}]" if self.listed else f"{self.file}:{number}"


def read_table(config: ManifestSource, file: Path) -> Table:
    """Open a table; its suffix tells JSON from everything else.

    Raises:
        UserError: for what is no such table, and for columns that do not say what they hold.
    """
    suffix = file.suffix.lower()
    if suffix in _OTHERS:
        hint = "; pictures inside a Parquet file are kind: parquet" if suffix == ".parquet" else ""
        raise UserError(f"{file}: tables are read from text; save it as CSV or JSON lines (.jsonl){hint}")
    table = Table(file)
    said = config.columns.model_dump()
    if suffix in LINES:
        table.rows = _objects(table, said, json_lines(file, MAX_BYTES))
    elif suffix == ".json":
        table.rows = _objects(table, said, _json_list(table, said))
    else:
        table.rows = _cells(table, said, config.separator)
    return table


def _json_list(table: Table, said: dict[str, str | None]) -> Iterable[tuple[int, Any]]:
    """Entries of the list that a ``.json`` file is, or its lines where it is JSON lines."""
    file = table.file
    content, lines = json_or_lines(file, MAX_JSON, MAX_BYTES)
    if lines is not None:
        return lines
    if isinstance(content, dict):
        try:
            meaning(list(content), said)
        except Unclear:
            coop = {"train", "test"} <= set(content)
            hint = "; CoOp's split files are kind: coop" if coop else ""
            raise UserError(
                f"{file}: must be a list of objects with path, label and split, {_keys(content)}{hint}"
            ) from None
        content = [content]
    if not isinstance(content, list):
        raise UserError(f"{file}: must be a list of objects with path, label and split, got {shown(content)}")
    table.listed = True
    return enumerate(content)


def _objects(
    table: Table, said: dict[str, str | None], entries: Iterable[tuple[int, Any]]
) -> Iterator[tuple[int, Cells | str]]:
    """Rows of JSON objects; the first one's keys say which is which, and the split may be a key that only
    later ones have."""
    found: Meaning | None = None
    known: set[str] = set()
    for number, entry in entries:
        if not isinstance(entry, dict):
            yield number, _OBJECT
            continue
        if found is None:
            found, known = _first(table, said, number, entry), set(entry)
        elif not entry.keys() <= known:
            further = [key for key in entry if key not in known]
            table.columns, known = [*table.columns, *further], known.union(further)
            found = found if found.split is not None else _with_split(table, found, number, entry, further)
        if found is None:
            yield number, f"{_OBJECT}, {_keys(entry)}; columns: in the source names others"
        elif found.path not in entry or found.label not in entry:
            yield number, f"{_OBJECT} (here {found.path} and {found.label}), {_keys(entry)}"
        else:
            yield number, (entry[found.path], entry[found.label], found.part(entry.get(found.split or SPLIT)))


def _first(table: Table, said: dict[str, str | None], number: int, entry: dict) -> Meaning | None:
    """Which key is which; None where some are missing, and the object is told of by itself."""
    table.columns = list(entry)
    try:
        found = meaning(table.columns, said)
    except Unclear as unclear:
        if unclear.missing:
            return None
        raise UserError(f"{table.place(number)}: {unclear}") from None
    return _settled(table, found, entry.get(found.split or SPLIT))


def _with_split(table: Table, found: Meaning, number: int, entry: dict, further: Sequence[str]) -> Meaning:
    """The meaning, with the split where it is one of the keys that no row before had."""
    columns = [found.path, found.label, *further]
    try:
        more = meaning(columns, {PATH: found.path, LABEL: found.label})
    except Unclear as unclear:
        raise UserError(f"{table.place(number)}: {unclear}") from None
    return _settled(table, more, entry[more.split]) if more.split is not None else found


def _keys(entry: dict) -> str:
    found = ", ".join(shown(key) for key in list(entry)[:8])
    return f"found {found or 'nothing'}"


def _settled(table: Table, found: Meaning, split: Any) -> Meaning:
    """The meaning after a look at the first row: a ``fold`` of numbers is no part that we know."""
    split = found.part(split)
    if SPLIT in found.guessed and split not in (None, ""):
        part = split_of(split) if isinstance(split, str) else None
        if part is None:
            table.notes.append(
                f"the column {found.split!r} is not read as split, which {shown(split)} is none of"
            )
            found = replace(found, split=None, guessed=tuple(r for r in found.guessed if r != SPLIT))
    table.notes += [told] if (told := found.told()) else []
    table.label, table.flag = found.label, found.flag
    return found


def _cells(
    table: Table, said: dict[str, str | None], separator: str | None
) -> Iterator[tuple[int, Cells | str]]:
    """Rows of text with something between the cells."""
    lines = read_lines(table.file, MAX_BYTES)
    before, head = 0, ""
    for head in lines:
        # Excel writes its separator into a line of its own.
        own = re.fullmatch(r'"?sep=(.)"?', head.strip("\r\n")) if before == 0 else None
        if head.strip() and not own:
            break
        separator = separator or (own[1] if own else None)
        before, head = before + 1, ""
    separator = separator or _separator(head, said, table.file.suffix.lower() == ".tsv")
    raw = next(csv.reader([head], delimiter=separator), [])
    reader = csv.reader(
        itertools.chain([head], lines),
        delimiter=separator,
        skipinitialspace=separator != " " and any(name.startswith(" ") for name in raw[1:]),
    )
    try:
        table.columns = [name.strip() for name in next(reader, [])]
        try:
            found = meaning(table.columns, said)
        except Unclear as unclear:
            raise UserError(f"{table.file}:{before + 1}: {unclear}") from None
        yield from _below(table, found, reader, before, _SEPARATORS.get(separator, "the separator"))
    except csv.Error as error:
        raise UserError(
            f"{table.file}:{before + reader.line_num}: cannot be read as CSV: {error};"
            " is a quote never closed?"
        ) from None


def _below(
    table: Table, found: Meaning, reader: Any, before: int, separator: str
) -> Iterator[tuple[int, Cells | str]]:
    width = len(table.columns)
    path, label = table.columns.index(found.path), table.columns.index(found.label)
    split: int | None = -1
    for row in reader:
        if not any(row):
            continue
        number = before + reader.line_num
        if len(row) > width and any(row[width:]):
            yield number, f"has more cells than columns; a text that holds {separator} needs quotes"
            continue
        row += [""] * (width - len(row))
        if split == -1:
            place = table.columns.index(found.split) if found.split is not None else None
            found = _settled(table, found, row[place] if place is not None else None)
            split = place if found.split is not None else None
        yield number, (row[path], row[label], found.part(row[split]) if split is not None else None)


def _separator(head: str, said: dict[str, str | None], tabs: bool) -> str:
    """What parts the first line into columns of which a picture and its class can be read; where nothing
    does, what parts it into the most."""
    widths: dict[str, int] = {}
    for separator in sorted(_SEPARATORS, key=lambda one: one != "\t") if tabs else _SEPARATORS:
        try:
            columns = [name.strip() for name in next(csv.reader([head], delimiter=separator), [])]
            widths[separator] = len(columns)
            meaning(columns, said)
        except (Unclear, csv.Error):
            continue
        return separator
    return max(widths, key=lambda one: widths[one], default=",")
