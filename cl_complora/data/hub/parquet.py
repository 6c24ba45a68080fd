"""Parquet files as a source: pictures stay in their files, and are read a group of rows at a time."""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config.hub_sources import ParquetSource
from ...errors import UserError
from ...files import open_file, stand_in
from ..archives.shard_names import called, common_folder, files_of
from ..images.cache import cache_folder, keep_json
from .hub_columns import hub_columns
from .hub_pictures import HubPictures, Rows, Value, picture_of, refuse_without

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import FileMetaData, ParquetFile

# Bytes of pictures that are kept in memory for the next one; a group of rows is kept whole even so.
KEPT = 2**28
# A group of rows of more bytes is refused: every picture of it would be read with all the others.
MOST_GROUP = 2**33
# Rows decoded at a time, of pictures and of labels; fewer where they may come to more than KEPT: a dictionary
# can make many large values out of one, and so can an encoding by how values differ.
_PICTURES, _LABELS = 16, 128
_JPEG = b"\xff\xd8\xff"


class Kept:
    """The groups of rows that were read last, of all files of a source."""

    def __init__(self) -> None:
        self._groups: OrderedDict[tuple[Path, int], list[Value]] = OrderedDict()
        self._bytes = 0

    def get(self, rows: ParquetRows, column: str, group: int) -> list[Value]:
        """The pictures of a group, read where it is not kept."""
        key = (rows.path, group)
        if key not in self._groups:
            values = rows.group(column, group)
            while self._groups and self._bytes + _size(values) > KEPT:
                self._bytes -= _size(self._groups.popitem(last=False)[1])
            self._groups[key] = values
            self._bytes += _size(values)
        self._groups.move_to_end(key)
        return self._groups[key]


def _size(values: Sequence[Value]) -> int:
    return sum(len(value) for value in set(values) if value is not None)


class ParquetRows(Rows):
    """One file.

    Args:
        path: of the file.
        name: of it in keys.
        kept: what was read last.

    Raises:
        UserError: for what is no Parquet file.
    """

    def __init__(self, path: Path, name: str, kept: Kept) -> None:
        self.path, self.name, self.place, self._kept = path, name, str(path), kept
        self._metadata: FileMetaData | None = None
        with self._open() as file:
            self._metadata, self._schema = file.metadata, file.schema_arrow
            groups = range(file.metadata.num_row_groups)
            counts = [file.metadata.row_group(group).num_rows for group in groups]
        found = os.stat(path)
        self.stamp = f"{found.st_size} {found.st_mtime_ns}"
        self._starts = [0, *accumulate(counts)][:-1]

    @contextmanager
    def _open(self) -> Iterator[ParquetFile]:
        from pyarrow.parquet import ParquetFile

        try:
            with open_file(self.path) as file:
                head = file.read(512)
                if not head or stand_in(head):
                    raise ValueError(f"it is {stand_in(head) or 'empty'}")
                file.seek(0)
                yield ParquetFile(file, metadata=self._metadata)
        except UserError:
            raise
        except Exception as error:  # readers raise whatever a hostile file leads them to
            told = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{self.path}: cannot be read as a Parquet file: {told}") from None

    def schema(self) -> pyarrow.Schema:
        """As in the base class."""
        return self._schema

    def labels(self, column: str) -> list[Any]:
        """As in the base class."""
        with self._open() as file:
            groups = range(self._metadata.num_row_groups)
            cells = (cell for group in groups for cell in self._cells(file, column, group, _LABELS))
            return self.shared(cells, column)

    def values(self, column: str, group: int) -> Iterator[tuple[Value, str]]:
        """The pictures of a group of rows, each with its name, if any.

        Raises:
            UserError: for damage, and for a group that is too large.
        """
        with self._open() as file:
            size = self._stated(column, group)
            if size > MOST_GROUP:
                raise UserError(
                    f"{self.path}: group {group} of rows holds {size / 2**30:.0f} GiB of pictures, which are"
                    " read together; write it anew with smaller groups (datasets writes 100 rows each)"
                )
            for cell in self._cells(file, column, group, _PICTURES):
                yield picture_of(cell)

    def _cells(self, file: ParquetFile, column: str, group: int, most: int) -> Iterator[Any]:
        rows = max(1, min(most, KEPT // max(1, self._stated(column, group))))
        for batch in file.iter_batches(rows, row_groups=[group], columns=[column]):
            yield from batch.column(batch.schema.get_field_index(column)).to_pylist()

    def _stated(self, column: str, group: int) -> int:
        """Bytes of a column in a group, by what the file says, which counts equal values once."""
        held = self._metadata.row_group(group)
        chunks = (held.column(place) for place in range(held.num_columns))
        return sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if f"{chunk.path_in_schema}.".startswith(f"{column}.")
        )

    def group(self, column: str, group: int) -> list[Value]:
        """The pictures of a group of rows to be kept, equal ones as one object.

        Raises:
            UserError: as :meth:`values`, and for a group that holds far more than the file states.
        """
        found: list[Value] = []
        known: dict[Value, Value] = {}
        stated = self._stated(column, group)
        left = stated + KEPT
        for value, _ in self.values(column, group):
            left -= 0 if value is None or value in known else len(value)
            if left < 0:
                raise UserError(
                    f"{self.path}: group {group} of rows holds more pictures than the {stated:,} bytes that"
                    " it states; write it anew with smaller groups (datasets writes 100 rows each)"
                )
            found.append(known.setdefault(value, value))
        return found

    def stored(self, column: str) -> list[tuple[int | None, str]]:
        """As in the base class; kept beside the decoded images, since it needs the whole column read."""
        folder = cache_folder()
        told = f"parquet {column} {self.path} {self.stamp}"
        digest = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()
        file = folder / f"{digest[:32]}.json" if folder is not None else None
        found = self._known(file) if file is not None else None
        if found is not None:
            return found
        groups = range(self._metadata.num_row_groups)
        found = [_told(*cell) for group in groups for cell in self.values(column, group)]
        keep_json(file, found)
        return found

    def _known(self, file: Path) -> list[tuple[int | None, str]] | None:
        try:
            found = [(size, name) for size, name in json.loads(file.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return None
        return found if len(found) == self._metadata.num_rows else None

    def picture(self, column: str, row: int) -> bytes:
        """As in the base class."""
        group = bisect_right(self._starts, row) - 1
        try:
            values = self._kept.get(self, column, group)
        except UserError as error:
            raise ValueError(error.messages[0]) from None
        value = values[row - self._starts[group]]
        if value is None:
            raise ValueError("holds no picture")
        return value


def _told(value: Value, name: str) -> tuple[int | None, str]:
    return (
        None if value is None else len(value),
        name or (".jpg" if value and value.startswith(_JPEG) else ""),
    )


def open_parquet(config: ParquetSource, folder: Path) -> HubPictures:
    """Parquet files by pattern below the scenario's folder.

    Raises:
        UserError: where a pattern matches nothing, pyarrow is missing, or a file is damaged.
    """
    refuse_without("pyarrow", "parquet")
    files = {
        part: files_of(pattern, folder, "file")
        for part in ("train", "test", "validation")
        if (pattern := getattr(config, part)) is not None
    }
    paths = list(dict.fromkeys(path for found in files.values() for path in found))
    names, kept = called(paths), Kept()
    tables = {path: ParquetRows(path, names[path], kept) for path in paths}
    columns = {rows.name: hub_columns(rows.schema(), config.columns, rows.place) for rows in tables.values()}
    parts = {part: [tables[path] for path in found] for part, found in files.items()}
    source = HubPictures(parts, columns, config, common_folder(paths))
    # Without files for it the validation's are the test.
    both = set(files.get("train", ())) & set(files.get("test") or files.get("validation") or ())
    if both:
        source.notes.append(f"{min(both)}: is for training and for the test; what was trained on is no test")
    return source
