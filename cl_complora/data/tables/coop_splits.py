"""CoOp's ``split_zhou_*.json``, which names training, validation and test images of a data set."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...config.sources import CoopSource
from ...config.yaml_lines import shown
from ...errors import UserError
from ...files import parse_json, read_text
from ..telling import Faults
from .manifests import Listed, Malformed, as_listed, inside, roots_of
from .tables import MAX_JSON


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
    faults = Faults(file)
    root = folder / Path(config.root).expanduser()
    roots = roots_of(root)
    for split, place, entry in _entries(content, file):
        try:
            path, label, name = _triple(entry, roots)
            if names.setdefault(label, name) != name:
                raise Malformed(
                    f"label {label} is called {shown(name)} here and {shown(names[label])} before"
                )
            rows.append((split, path, label))
        except Malformed as fault:
            faults.add(f"{file}: {split}[{place}]: {fault}")
    faults.refuse()
    if sorted(names) != list(range(len(names))) or not names:
        raise UserError(f"{file}: labels must be 0, 1, 2 … without a gap, got {sorted(names)[:5]}…")
    class_names = [names[label].replace("_", " ") for label in range(len(names))]

    def place(order: int) -> str:
        split = rows[order][0]
        return f"{file}: {split}[{sum(row[0] == split for row in rows[:order])}]"

    return as_listed(file, root, class_names, rows, place)


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


def _triple(entry: Any, roots: Sequence[str]) -> tuple[str, int, str]:
    whole = isinstance(entry, list) and [type(value) for value in entry] == [str, int, str]
    if not whole or not 0 <= entry[1] < 10**9:
        raise Malformed(f"must be [path, label, class name] with a label of at least 0, got {shown(entry)}")
    path, label, name = entry
    return inside(path, roots), label, sys.intern(name)
