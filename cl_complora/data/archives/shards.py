"""WebDataset tar shards as a source: the images stay in their archives and are read by name."""

from __future__ import annotations

import errno
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ...config.sources import ShardsSource
from ...config.yaml_lines import shown
from ...errors import UserError
from ...files import open_file, parse_json, stand_in
from ..images.picture_files import image_suffixes
from ..images.pictures import Pictures
from ..items import Item
from ..names.class_list import ClassList
from ..telling import Passing, counted, worded
from .packed import how_to_unpack
from .shard_names import called, common_folder, files_of
from .shard_samples import Sample, samples
from .tar import Damaged, Member

if TYPE_CHECKING:
    from torch import Tensor

    from ..images.pixels import Pixels

# Bytes of a label's file.
MAX_LABEL = 100_000


class Shards(Pictures):
    """Samples of tar files: ``<key>.jpg`` beside ``<key>.cls`` (a number or a name), ``<key>.json`` (with
    ``label``) or ``<key>.txt``.

    Nothing is extracted: a member is read from its archive, whatever its name.

    Args:
        train, test: shards of either split.
        classes: names for numbered labels; needed where the shards hold numbers.
        image, label: extensions of the picture and the label where a sample has several, those that count
            first in front, with ``;`` between them.

    Attributes:
        root: the folder that holds all of them.
        notes: what a user should know of how the shards were read, a line each.
    """

    prompts: list[str] | None = None
    at_once = True

    def __init__(
        self,
        train: Sequence[Path],
        test: Sequence[Path],
        classes: Sequence[str] | None,
        image: str | None = None,
        label: str | None = None,
    ) -> None:
        self._members: dict[str, tuple[Path, Member]] = {}
        self._image = image.split(";") if image else None
        self._label = label.split(";") if label else None
        self._passed_over: list[str] = []
        self._used: Counter[str] = Counter()
        self._beside: set[str] = set()
        names = called([*train, *test])
        self.root = common_folder(names)
        found = {
            split: [row for path in paths for row in self._index(path, names[path])]
            for split, paths in (("train", train), ("test", test))
        }
        labels = {label for rows in found.values() for _, label, _ in rows}
        first = train[0] if train else test[0]
        if not labels:
            raise UserError(f"{first}: this shard and the others hold no images ({self._wanted()})")
        if not classes and all(label.isdecimal() for label in labels):
            raise UserError(f"{first}: labels are numbers; name the classes with classes: [...]")
        self.class_names = list(classes) if classes else sorted(labels)
        self._classes = ClassList(self.class_names)
        self._items = {split: [self._item(*row) for row in rows] for split, rows in found.items()}
        self.notes = self._told(first, labels)
        both = set(train) & set(test)
        if both:
            share = "all" if both == set(test) else f"{len(both)} of {len(test)}"
            self.notes.append(
                f"{min(both)}: {share} test shards are training shards too; what was trained on is no test"
            )

    def _index(self, path: Path, called: str) -> list[tuple[str, str, int]]:
        """(key of the image, label, bytes) of one shard's samples, in the order of their images."""
        rows, bare, beside_them = [], [], Counter()
        try:
            with open_file(path) as file:
                advice = how_to_unpack(path, file)
                if advice:
                    raise UserError(f"{path}: {advice}")
                file.seek(0)
                head = file.read(512)
                if not head or stand_in(head):
                    raise Damaged(f"it is {stand_in(head) or 'empty'}")
                for sample in samples(file):
                    picture = sample.picture(self._image)
                    if picture is None:
                        self._passed_over.append(f"{path}: {sample}")
                        continue
                    label = self._label_of(file, sample, path)
                    if label is None:
                        bare.append(sample.members[picture].name)
                        beside_them.update(end for end in sample.members if end != picture)
                    else:
                        rows.append((sample.members[picture], label))
        except OSError as error:
            raise UserError(f"{path}: cannot be read as a tar shard: {error.strerror or error}") from None
        except Damaged as error:
            raise UserError(f"{path}: cannot be read as a tar shard: {error}") from None
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None
        if bare:
            beside = " or ".join(f".{end}" for end in self._label or ("cls", "json", "txt"))
            more = f", nor has any of {len(bare) - 1} other pictures" if len(bare) > 1 else ""
            hint = ""
            if beside_them and not self._label:
                other = beside_them.most_common(1)[0][0]
                hint = f"; beside them are .{other}, which label: {other} in the source reads as text"
            elif not rows and all("/" in name for name in bare):
                hint = "; if their folders are the classes, unpack it and name the folder (kind: folder)"
            raise UserError(f"{path}: {bare[0]} has no label beside it ({beside}){more}{hint}")
        rows.sort(key=lambda row: row[0].start)
        for member, _ in rows:
            self._members[f"{called}/{member.name}"] = (path, member)
        return [(f"{called}/{member.name}", label, member.size) for member, label in rows]

    def _label_of(self, file: BinaryIO, sample: Sample, path: Path) -> str | None:
        """The label from the first extension that holds one; ``.json`` may be about other things."""
        without: Member | None = None
        for extension in sample.labels(self._label):
            member = sample.members[extension]
            file.seek(member.start)
            label = _label(extension, file.read(min(member.size, MAX_LABEL)))
            if label is not None:
                self._used[extension] += 1
                self._beside |= set() if self._label else sample.unused(extension)
                return label
            without = without or member
        if without is not None:
            raise UserError(f"{path}: {without.name} must hold a JSON object with label, a text or a number")
        return None

    def _wanted(self) -> str:
        return (
            ", ".join(f".{end}" for end in self._image)
            if self._image
            else ", ".join(sorted(image_suffixes()))
        )

    def _told(self, first: Path, labels: set[str]) -> list[str]:
        told = []
        if self._passed_over:
            are = worded(len(self._passed_over), "is", "are")
            told.append(
                f"{counted(len(self._passed_over), 'sample')} without a picture"
                f"{f' ({self._wanted()})' if self._image else ''} {are} passed over, such as"
                f" {self._passed_over[0]}"
            )
        if self._beside or len(self._used) > 1:
            used = " and ".join(
                f".{end} ({counted(count, 'sample')})" for end, count in sorted(self._used.items())
            )
            others = sorted(self._beside - set(self._used))
            unused = f", not from {' and '.join(f'.{end}' for end in others)} beside it" if others else ""
            told.append(
                f"{first} and the others: labels are read from {used}{unused}; label: in the source chooses"
            )
        if any(self.class_names[self._classes.place(label)] != label for label in labels):
            told.append(
                f"{first} and the others: labels are numbers, which count from 0 in classes: 0 is"
                f" {self.class_names[0]!r}"
            )
        return told

    def _item(self, key: str, label: str, size: int) -> Item:
        place = self._classes.place(label)
        if place is None:
            raise UserError(
                f"{key}: label {shown(label)} is none of the source's "
                f"{counted(len(self.class_names), 'class', 'classes')}"
            )
        return Item(place, key, size)

    def items(self, split: str) -> list[Item]:
        """Images of a split by class, each class in the order of the shards."""
        return sorted(self._items.get(split, []), key=lambda item: item.label)

    def identities(self, items: Sequence[Item]) -> list[str]:
        """The members of the shards, wherever links lead."""
        placed = [self._members[item.key] for item in items]
        real = {path: os.path.realpath(path) for path in {path for path, _ in placed}}
        return [f"{real[path]}/{member.name}" for path, member in placed]

    def stamp(self, item: Item) -> int:
        """When the shard, which the key names, was last written."""
        path, _ = self._members[item.key]
        return path.stat().st_mtime_ns

    def picture(self, item: Item, pixels: Pixels) -> Tensor:
        """One member of a shard."""
        try:
            content = self.stored(item).read()
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise UserError(f"{item.key}: cannot be read as an image: {error.strerror}") from None
            path, _ = self._members[item.key]
            raise Passing(f"{path}: cannot be read: {error.strerror or error}") from None
        return pixels.decode(content, item.key)

    def stored(self, item: Item) -> BinaryIO:
        """A member of a shard, in memory, where it is not too large for a picture."""
        from ..images.pixels import MAX_BYTES

        path, member = self._members[item.key]
        if member.size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"is larger than {MAX_BYTES:,} bytes", item.key)
        with open_file(path) as file:
            file.seek(member.start)
            return io.BytesIO(file.read(member.size))


def _label(extension: str, content: bytes) -> str | None:
    """A label's text; None for JSON without one."""
    text = content.decode("utf-8-sig", "replace").strip()
    if extension.rpartition(".")[2] not in ("json", "jsn"):
        return text
    try:
        label = parse_json(text)["label"]
    except (ValueError, TypeError, KeyError):
        return None
    return str(label) if isinstance(label, str | int) and not isinstance(label, bool) else None


def open_shards(config: ShardsSource, folder: Path) -> Shards:
    """Shards by pattern below the scenario's folder.

    Raises:
        UserError: where a pattern matches nothing.
    """
    train, test = (files_of(getattr(config, split), folder) for split in ("train", "test"))
    return Shards(train, test, config.classes, config.image, config.label)
