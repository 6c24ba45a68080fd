"""WebDataset tar shards as a source: the images stay in their archives and are read by name."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from ..config.sources import ShardsSource
from ..config.yaml_lines import shown
from ..errors import UserError
from ..files import open_file, parse_json
from .picture_files import image_suffixes
from .pictures import Item, Pictures
from .tar import Damaged, Member, members

if TYPE_CHECKING:
    from torch import Tensor

    from .pixels import Pixels

# Bytes of a label's file.
MAX_LABEL = 100_000
_LABELS = ("cls", "txt", "json")


class Shards(Pictures):
    """``<key>.jpg`` beside ``<key>.cls`` (a number or a name) or ``<key>.json`` (with ``label``) in tar
    files.

    Nothing is extracted: a member is read from its archive, whatever its name.

    Args:
        train, test: shards of either split.
        classes: names for numbered labels; needed where the shards hold numbers.
    """

    prompts: list[str] | None = None

    def __init__(self, train: Sequence[Path], test: Sequence[Path], classes: Sequence[str] | None) -> None:
        self._members: dict[str, tuple[Path, Member]] = {}
        called = _called([*train, *test])
        found = {
            split: [row for path in paths for row in self._index(path, called[path])]
            for split, paths in (("train", train), ("test", test))
        }
        labels = {label for rows in found.values() for _, label, _ in rows}
        first = train[0] if train else test[0]
        if not labels:
            raise UserError(
                f"{first}: this shard and the others hold no images ({', '.join(sorted(image_suffixes()))})"
            )
        if not classes and all(label.isdecimal() for label in labels):
            raise UserError(f"{first}: labels are numbers; name the classes with classes: [...]")
        self.class_names = list(classes) if classes else sorted(labels)
        self._places = {name: place for place, name in enumerate(self.class_names)}
        self._items = {split: [self._item(*row) for row in rows] for split, rows in found.items()}

    def _index(self, path: Path, called: str) -> list[tuple[str, str, int]]:
        """(key of the image, label, bytes) of one shard."""
        images: dict[str, Member] = {}
        labels: dict[str, str] = {}
        try:
            with open_file(path) as file:
                for member in members(file):
                    stem, _, suffix = member.name.rpartition(".")
                    if f".{suffix.lower()}" in image_suffixes():
                        if stem in images:
                            raise UserError(
                                f"{path}: {member.name} comes after {images[stem].name}, of the same name"
                            )
                        images[stem] = member
                    elif suffix in _LABELS and stem not in labels:
                        labels[stem] = _label(file, member, f"{path}: {member.name}")
        except OSError as error:
            raise UserError(f"{path}: cannot be read as a tar shard: {error.strerror or error}") from None
        except Damaged as error:
            raise UserError(f"{path}: cannot be read as a tar shard: {error}") from None
        return [self._row(path, called, member, labels.get(stem)) for stem, member in images.items()]

    def _row(self, path: Path, called: str, member: Member, label: str | None) -> tuple[str, str, int]:
        if label is None:
            beside = f"{PurePosixPath(member.name).stem}.cls or .json"
            raise UserError(f"{path}: {member.name} has no label beside it ({beside})")
        key = f"{called}/{member.name}"
        self._members[key] = (path, member)
        return key, label, member.size

    def _item(self, key: str, label: str, size: int) -> Item:
        place = self._places.get(label)
        if place is None and label.isdecimal() and len(label) < 10 and int(label) < len(self.class_names):
            place = int(label)
        if place is None:
            raise UserError(
                f"{key}: label {shown(label)} is none of the source's {len(self.class_names)} classes"
            )
        return Item(place, key, size)

    def items(self, split: str) -> list[Item]:
        """Images of a split by class, each class in the order of the shards."""
        return sorted(self._items.get(split, []), key=lambda item: item.label)

    def stamp(self, item: Item) -> str:
        """The shard and when it was last written."""
        path, _ = self._members[item.key]
        return f"{path} {path.stat().st_mtime_ns}"

    def picture(self, item: Item, pixels: Pixels) -> Tensor:
        """One member of a shard."""
        from .pixels import MAX_BYTES

        path, member = self._members[item.key]
        if member.size > MAX_BYTES:
            raise UserError(f"{item.key}: cannot be read as an image: is larger than {MAX_BYTES:,} bytes")
        try:
            content = self.stored(item).read()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
        return pixels.decode(content, item.key)

    def stored(self, item: Item) -> BinaryIO:
        """A member of a shard, in memory."""
        path, member = self._members[item.key]
        with open_file(path) as file:
            file.seek(member.start)
            return io.BytesIO(file.read(member.size))


def _called(paths: Sequence[Path]) -> dict[Path, str]:
    """What the shards are called in keys: their names, with their folders' where two have the same one."""
    names = {path: path.name for path in paths}
    if len(set(names.values())) < len(names):
        whole = {path: os.path.abspath(path) for path in names}
        common = os.path.commonpath([os.path.dirname(path) for path in whole.values()])
        names = {path: Path(whole[path]).relative_to(common).as_posix() for path in names}
    return names


def _label(file: BinaryIO, member: Member, where: str) -> str:
    file.seek(member.start)
    text = file.read(min(member.size, MAX_LABEL)).decode("utf-8", "replace").strip()
    if not member.name.endswith(".json"):
        return text
    try:
        label = parse_json(text)["label"]
    except (ValueError, TypeError, KeyError):
        label = None
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise UserError(f"{where} must hold a JSON object with label, a text or a number")
    return str(label)


def open_shards(config: ShardsSource, folder: Path) -> Shards:
    """Shards by pattern below the scenario's folder.

    Raises:
        UserError: where a pattern matches nothing.
    """
    paths = {}
    for split in ("train", "test"):
        pattern = folder / Path(getattr(config, split)).expanduser()
        try:
            paths[split] = sorted(pattern.parent.glob(pattern.name)) if pattern.parent.is_dir() else []
        except (ValueError, NotImplementedError):
            raise UserError(f"{pattern}: is no pattern of file names, such as {split}-*.tar") from None
        if not paths[split]:
            raise UserError(f"{pattern}: no shard matches")
    return Shards(paths["train"], paths["test"], config.classes)
