"""A source without the pictures that cannot be read, each of which is named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from ..errors import UserError
from .cache import cache_folder, file_of, keep_json
from .items import Item, Reading, Source

if TYPE_CHECKING:
    from torch import Tensor

    from .pixels import Pixels


class Readable:
    """What ``broken: skip`` asks for: every picture of a split is decoded once, before any is drawn.

    What was found is kept beside the decoded images, under a name that is a hash of the files' names, sizes
    and times: the next run of the same data does not look again.

    Args:
        source: the source with all its pictures.

    Attributes:
        skipped: a line for each picture left out of the splits asked for so far.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.class_names, self.prompts, self.origin = source.class_names, source.prompts, source.origin
        self.skipped: list[str] = []
        self.path_of = getattr(source, "path_of", None)
        self._splits: dict[str, list[Item]] = {}

    def items(self, split: str) -> list[Item]:
        """The readable images of a split."""
        if split not in self._splits:
            present = getattr(self.source, "present", None)
            items, absent = present(split) if present else (self.source.items(split), [])
            self.skipped += absent
            faults = _faults(self.source, items)
            self.skipped += faults.values()
            self._splits[split] = [item for item in items if item.key not in faults]
        return self._splits[split]

    @property
    def notes(self) -> Sequence[str]:
        """What the source has to tell."""
        return getattr(self.source, "notes", ())

    def stamp(self, item: Item) -> int | str | None:
        """As the source does it."""
        return self.source.stamp(item)

    def reading(self, items: Sequence[Item]) -> Reading:
        """As the source does it."""
        return self.source.reading(items)

    def stored(self, item: Item) -> BinaryIO:
        """As the source does it."""
        return self.source.stored(item)

    def load(self, items: Sequence[Item], pixels: Pixels) -> Tensor:
        """As the source does it."""
        return self.source.load(items, pixels)


def _faults(source: Source, items: Sequence[Item]) -> dict[str, str]:
    """Key → why it cannot be read."""
    folder = cache_folder()
    file = file_of(source, items, None, folder) if folder is not None else None
    if file is not None:
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            pass
    from .pixels import Pixels

    pixels, faults = Pixels((32, 32)), {}
    for item in (
        item for item in items if item.size is not None
    ):  # what is no file is drawn or was read whole
        try:
            source.load([item], pixels)
        except UserError as error:
            faults[item.key] = error.messages[0]
    keep_json(file, faults)
    return faults
