"""Sources that name their images in a file: JSONL and CSV manifests, and CoOp's ``split_zhou_*.json``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from ..config.source import CoopSource, ManifestSource
from ..errors import UserError
from .sources import Files, Item

_SPLITS = {"train": "train", "training": "train", "test": "test", "val": "validation", "validation": "validation"}


class Listed(Files):
    """Images by split, as a file lists them.

    Args:
        root: folder that image paths start from.
        class_names: in label order.
        rows: (split, path below the root, label) in the file's order.
    """

    prompts: list[str] | None = None

    def __init__(self, root: Path, class_names: Sequence[str], rows: Sequence[tuple[str, str, int]]) -> None:
        self.root, self.class_names = root, list(class_names)
        self._rows = rows

    def items(self, split: str) -> list[Item]:
        """Images of a split by class, each class in the file's order."""
        found = [
            Item(label, key, self._size(key), order)
            for order, (where, key, label) in enumerate(self._rows)
            if where == split
        ]
        return sorted(found, key=lambda item: item.label)

    def _size(self, key: str) -> int:
        try:
            return (self.root / key).stat().st_size
        except OSError as error:
            raise UserError(f"{self.root / key}: {error.strerror or error}") from None


def open_manifest(config: ManifestSource, folder: Path) -> Listed:
    """``path,label,split`` in CSV, or the same keys in JSON lines; labels are class names.

    Raises:
        UserError: naming file and line.
    """
    file = folder / Path(config.file).expanduser()
    rows = list(_json_lines(file) if file.suffix in (".jsonl", ".ndjson") else _csv_rows(file))
    if not rows:
        raise UserError(f"{file}: names no image")
    names = config.classes or sorted({str(label) for _, _, label, _ in rows})
    position = {name: index for index, name in enumerate(names)}
    root = folder / Path(config.root).expanduser() if config.root is not None else file.parent
    found, seen = [], set()
    for number, path, label, split in rows:
        where = f"{file}:{number}"
        if split not in _SPLITS:
            raise UserError(f"{where}: split must be train, validation or test, got {split!r}")
        if label not in position:
            raise UserError(f"{where}: label {label!r} is none of the source's classes")
        key = _inside(path, where)
        if key in seen:
            raise UserError(f"{where}: {path!r} is named a second time")
        seen.add(key)
        found.append((_SPLITS[split], key, position[label]))
    return Listed(root, names, found)


def _json_lines(file: Path) -> Iterator[tuple[int, str, str, str]]:
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield number, str(row["path"]), str(row["label"]), str(row.get("split", "train"))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{file}:{number}: must be a JSON object with path, label and split") from None


def _csv_rows(file: Path) -> Iterator[tuple[int, str, str, str]]:
    reader = csv.DictReader(_text(file).splitlines())
    missing = [name for name in ("path", "label") if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(f"{file}:1: the columns must be path, label and split, {' and '.join(missing)} missing")
    for row in reader:
        if not row["path"] or not row["label"]:
            raise UserError(f"{file}:{reader.line_num}: path or label is empty")
        yield reader.line_num, row["path"], row["label"], row.get("split") or "train"


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _inside(path: str, where: str) -> str:
    """A path that stays below the root.

    Raises:
        UserError: for one that leaves it.
    """
    pure = PurePosixPath(path.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise UserError(f"{where}: path must lie below the root, got {path!r}")
    return pure.as_posix()


def open_coop(config: CoopSource, folder: Path) -> Listed:
    """CoOp's split file: ``{"train": [[path, label, class name] …], "val": […], "test": […]}``.

    Raises:
        UserError: for a file of another form.
    """
    file = folder / Path(config.file).expanduser()
    try:
        content = json.loads(_text(file))
        rows = [
            (_SPLITS[split], _inside(str(path), str(file)), int(label), str(name))
            for split in ("train", "val", "test")
            for path, label, name in content.get(split, [])
        ]
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{file}: must hold train, val and test, each a list of [path, label, class name]") from None
    names = {label: name for _, _, label, name in rows}
    if sorted(names) != list(range(len(names))) or not names:
        raise UserError(f"{file}: labels must be 0, 1, 2 … without a gap, got {sorted(names)[:5]}…")
    root = folder / Path(config.root).expanduser()
    class_names = [names[label].replace("_", " ") for label in range(len(names))]
    return Listed(root, class_names, [(split, path, label) for split, path, label, _ in rows])
