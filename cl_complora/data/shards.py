"""WebDataset tar shards as a source: the images stay in their archives and are read by name."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..config.source import ShardsSource
from ..errors import UserError
from .sources import IMAGE_SUFFIXES, Item, Pictures

if TYPE_CHECKING:
    from torch import Tensor

    from .pixels import Pixels


class Shards(Pictures):
    """``<key>.jpg`` beside ``<key>.cls`` (a number or a name) or ``<key>.json`` (with ``label``) in tar files.

    Nothing is extracted: a member is read from its archive, whatever its name.

    Args:
        train, test: shards of either split.
        classes: names for numbered labels; needed where the shards hold numbers.
    """

    prompts: list[str] | None = None

    def __init__(self, train: Sequence[Path], test: Sequence[Path], classes: Sequence[str] | None) -> None:
        self._members: dict[str, tuple[Path, tarfile.TarInfo]] = {}
        found = {split: [row for path in paths for row in self._index(path)] for split, paths in
                 (("train", train), ("test", test))}  # fmt: skip
        labels = {label for rows in found.values() for _, label, _ in rows}
        self.class_names = list(classes) if classes else sorted(labels)
        if not classes and all(label.isdigit() for label in labels):
            raise UserError(
                f"{train[0] if train else test[0]}: labels are numbers; name the classes with classes: [...]"
            )
        self._items = {split: [self._item(*row) for row in rows] for split, rows in found.items()}

    def _index(self, path: Path) -> list[tuple[str, str, int]]:
        """(key of the image, label, bytes) of one shard."""
        images: dict[str, tarfile.TarInfo] = {}
        labels: dict[str, str] = {}
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    stem, _, suffix = member.name.rpartition(".")
                    if not member.isfile():
                        continue
                    if f".{suffix.lower()}" in IMAGE_SUFFIXES:
                        images[stem] = member
                    elif suffix in ("cls", "txt", "json"):
                        labels.setdefault(stem, self._label(archive, member, suffix))
        except (OSError, tarfile.TarError) as error:
            raise UserError(f"{path}: cannot be read as a tar shard: {error}") from None
        rows = []
        for stem, member in images.items():
            if stem not in labels:
                raise UserError(
                    f"{path}: {member.name} has no label beside it ({PurePosixPath(stem).name}.cls or .json)"
                )
            key = f"{path.name}/{member.name}"
            self._members[key] = (path, member)
            rows.append((key, labels[stem], member.size))
        return rows

    @staticmethod
    def _label(archive: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> str:
        text = archive.extractfile(member).read(100_000).decode("utf-8", "replace").strip()
        if suffix != "json":
            return text
        try:
            return str(json.loads(text)["label"])
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{archive.name}: {member.name} must hold a JSON object with label") from None

    def _item(self, key: str, label: str, size: int) -> Item:
        if label in self.class_names:
            return Item(self.class_names.index(label), key, size)
        if label.isdigit() and int(label) < len(self.class_names):
            return Item(int(label), key, size)
        raise UserError(f"{key}: label {label!r} is none of the source's {len(self.class_names)} classes")

    def items(self, split: str) -> list[Item]:
        """Images of a split by class, each class in the order of the shards."""
        return sorted(self._items.get(split, []), key=lambda item: item.label)

    def stamp(self, item: Item) -> str:
        """The shard and when it was last written."""
        path, _ = self._members[item.key]
        return f"{path} {path.stat().st_mtime_ns}"

    def picture(self, item: Item, pixels: Pixels) -> Tensor:
        """One member of a shard."""
        path, member = self._members[item.key]
        with path.open("rb") as file:
            file.seek(member.offset_data)
            return pixels.decode(io.BytesIO(file.read(member.size)), item.key)


def open_shards(config: ShardsSource, folder: Path) -> Shards:
    """Shards by pattern below the scenario's folder.

    Raises:
        UserError: where a pattern matches nothing.
    """
    paths = {}
    for split in ("train", "test"):
        pattern = str(Path(getattr(config, split)).expanduser())
        anchor = Path(pattern)
        base = anchor.parent if anchor.is_absolute() else folder / anchor.parent
        paths[split] = sorted(base.glob(anchor.name)) if base.is_dir() else []
        if not paths[split]:
            raise UserError(f"{base / anchor.name}: no shard matches")
    return Shards(paths["train"], paths["test"], config.classes)
