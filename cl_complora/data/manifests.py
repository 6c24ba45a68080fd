"""Sources that name their images in a file: JSONL and CSV manifests, and CoOp's ``split_zhou_*.json``."""

from __future__ import annotations

import csv
import os
import stat
import sys
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.sources import CoopSource, ManifestSource
from ..config.yaml_lines import shown
from ..errors import MOST_FAULTS, UserError, raise_all
from ..files import parse_json, read_lines, read_text
from .picture_files import is_utf8
from .pictures import Files, Item

# A million rows take about a hundred megabytes. What is one JSON value takes up to 24 times its size in
# memory.
MAX_BYTES = 2**28
MAX_JSON = 2**26
_SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "val": "validation",
    "validation": "validation",
}


class Malformed(Exception):
    """A row or an entry that is not what it must be."""


@dataclass(frozen=True, slots=True)
class Row:
    """An image as a file lists it: which part it belongs to, its path below the root, and its class."""

    split: str
    key: str
    label: str


class Listed(Files):
    """Images by split, as a file lists them.

    Args:
        root: folder that image paths start from, and that no path or link leads out of.
        class_names: in label order.
        rows: images in the file's order, with their place among the classes.
    """

    prompts: list[str] | None = None

    def __init__(self, root: Path, class_names: Sequence[str], rows: Sequence[tuple[str, str, int]]) -> None:
        self.root, self.class_names = root, list(class_names)
        self._rows = rows
        self._inside: dict[str, bool] = {}
        self._items: dict[str, list[Item]] = {}

    def items(self, split: str) -> list[Item]:
        """Images of a split by class, each class in the file's order."""
        if split not in self._items:
            found, faults = [], []
            for order, (where, key, label) in enumerate(self._rows):
                if where == split:
                    try:
                        found.append(Item(label, key, self._size(key), order))
                    except Malformed as fault:
                        faults.append(f"{self.root / key}: {fault}")
                        if len(faults) == MOST_FAULTS:
                            break
            raise_all(faults)
            self._items[split] = sorted(found, key=lambda item: item.label)
        return self._items[split]

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


def open_manifest(config: ManifestSource, folder: Path) -> Listed:
    """``path,label,split`` in CSV, or the same keys in JSON lines; labels are class names.

    Raises:
        UserError: naming file and line of every fault, up to twenty.
    """
    file = folder / Path(config.file).expanduser()
    read = _json_lines if file.suffix in (".jsonl", ".ndjson") else _csv_rows
    classes = frozenset(config.classes) if config.classes is not None else None
    rows, seen, faults = [], set(), []
    for number, row in read(file):
        try:
            checked = _checked(row, classes)
            if checked.key in seen:
                raise Malformed(f"{shown(checked.key)} is named a second time")
            seen.add(checked.key)
            rows.append(checked)
        except Malformed as fault:
            faults.append(f"{file}:{number}: {fault}")
            if len(faults) == MOST_FAULTS:
                break
    raise_all(faults)
    if not rows:
        raise UserError(f"{file}: names no image")
    names = config.classes or sorted({row.label for row in rows})
    position = {name: index for index, name in enumerate(names)}
    root = folder / Path(config.root).expanduser() if config.root is not None else file.parent
    return Listed(root, names, [(row.split, row.key, position[row.label]) for row in rows])


def _json_lines(file: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(read_lines(file, MAX_BYTES), start=1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except ValueError:
                yield number, None


def _csv_rows(file: Path) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(read_lines(file, MAX_BYTES))
    try:
        columns = list(reader.fieldnames or ())
        missing = [name for name in ("path", "label") if name not in columns]
        if missing:
            raise UserError(
                f"{file}:1: the columns must be path, label and split, {' and '.join(missing)} missing"
            )
        twice = [name for name in ("path", "label", "split") if columns.count(name) > 1]
        if twice:
            raise UserError(f"{file}:1: the column {twice[0]} stands there twice")
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise UserError(
            f"{file}:{reader.line_num}: cannot be read as CSV: {error}; is a quote never closed?"
        ) from None


def _checked(row: Any, classes: Container[str] | None) -> Row:
    """A row that names one image.

    Raises:
        Malformed: saying what is wrong with it.
    """
    if not isinstance(row, dict) or "path" not in row or "label" not in row:
        raise Malformed("must be a JSON object with path, label and split")
    if None in row:
        raise Malformed("has more cells than columns; a text that holds a comma needs quotes")
    path, label, split = row["path"], _number_as_text(row["label"]), row.get("split") or "train"
    if not path or not label:
        raise Malformed("path or label is empty")
    if not isinstance(path, str) or not isinstance(label, str):
        raise Malformed("path must be a text, and label a text or a number")
    if not isinstance(split, str) or split not in _SPLITS:
        raise Malformed(f"split must be train, validation or test, got {shown(split)}")
    if classes is not None and label not in classes:
        raise Malformed(f"label {shown(label)} is none of the source's classes")
    return Row(_SPLITS[split], _inside(path), sys.intern(label))


def _number_as_text(label: Any) -> Any:
    return str(label) if isinstance(label, int) and not isinstance(label, bool) else label


def _inside(path: str) -> str:
    """A path that stays below the root.

    Raises:
        Malformed: for one that leaves it, or that no file can have.
    """
    path = path.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or not parts:
        raise Malformed(f"path must lie below the root, got {shown(path)}")
    if "\0" in path or not is_utf8(path) or len(path) > 4096:
        raise Malformed(f"path must be the name of a file, got {shown(path)}")
    return "/".join(parts)


def open_coop(config: CoopSource, folder: Path) -> Listed:
    """CoOp's split file: ``{"train": [[path, label, class name] …], "val": …, "test": […]}``.

    Raises:
        UserError: for a file of another form.
    """
    file = folder / Path(config.file).expanduser()
    text = read_text(file, MAX_JSON)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise UserError(f"{file}: cannot be read as JSON: {error}") from None
    rows: list[tuple[str, str, int]] = []
    names: dict[int, str] = {}
    faults: list[str] = []
    for split, place, entry in _entries(content, file):
        try:
            path, label, name = _triple(entry)
            if names.setdefault(label, name) != name:
                raise Malformed(
                    f"label {label} is called {shown(name)} here and {shown(names[label])} before"
                )
            rows.append((split, path, label))
        except Malformed as fault:
            faults.append(f"{file}: {split}[{place}]: {fault}")
            if len(faults) == MOST_FAULTS:
                break
    raise_all(faults)
    if sorted(names) != list(range(len(names))) or not names:
        raise UserError(f"{file}: labels must be 0, 1, 2 … without a gap, got {sorted(names)[:5]}…")
    root = folder / Path(config.root).expanduser()
    class_names = [names[label].replace("_", " ") for label in range(len(names))]
    return Listed(root, class_names, rows)


def _entries(content: Any, file: Path) -> Iterator[tuple[str, int, Any]]:
    parts = (
        [content.get(split, []) for split in ("train", "val", "test")]
        if isinstance(content, dict)
        else [None]
    )
    if not all(isinstance(part, list) for part in parts):
        raise UserError(f"{file}: must hold train, val and test, each a list of [path, label, class name]")
    for split, part in zip(("train", "validation", "test"), parts, strict=True):
        for place, entry in enumerate(part):
            yield split, place, entry


def _triple(entry: Any) -> tuple[str, int, str]:
    whole = isinstance(entry, list) and [type(value) for value in entry] == [str, int, str]
    if not whole or not 0 <= entry[1] < 10**9:
        raise Malformed(f"must be [path, label, class name] with a label of at least 0, got {shown(entry)}")
    path, label, name = entry
    return _inside(path), label, sys.intern(name)
