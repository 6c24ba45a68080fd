"""A source without the pictures that cannot be read, each of which is named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ...errors import UserError
from ..items import Item, Reading, Source, files
from ..telling import Passing
from .cache import cache_folder, file_of, keep_json

if TYPE_CHECKING:
    from torch import Tensor

    from .pixels import Pixels


def unreadable(message: str) -> bool:
    """Whether it tells of a picture that cannot be read."""
    return "cannot be read as an image" in message


@contextmanager
def saying_how_to_go_on() -> Iterator[None]:
    """Within, what cannot be read is told with the setting that leaves it out."""
    try:
        yield
    except UserError as error:
        first, *more = error.messages
        if unreadable(first):
            hint = "; broken: skip of a scenario (--set broken=skip) leaves out what cannot be read"
            error.messages = (f"{first}{hint}", *more)
        raise


class Readable:
    """What ``broken: skip`` asks for: every picture of a split is decoded once, before any is drawn.

    What was found is kept beside the decoded images, under a name that is a hash of the files' names, sizes
    and times and of what reads them: the next run of the same data looks again only at those pictures that
    could not be read for a reason that may have passed.

    Args:
        source: the source with all its pictures.

    Attributes:
        skipped: a line for each picture left out of the splits asked for so far.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.class_names, self.prompts, self.origin = source.class_names, source.prompts, source.origin
        self.skipped: list[str] = []
        self._splits: dict[str, list[Item]] = {}

    def items(self, split: str) -> list[Item]:
        """The readable images of a split."""
        if split not in self._splits:
            items, absent = self.source.present(split)
            self.skipped += absent
            faults = _faults(self.source, items)
            self.skipped += faults.values()
            self._splits[split] = [item for item in items if item.key not in faults]
        return self._splits[split]

    def present(self, split: str) -> tuple[list[Item], list[str]]:
        """The readable images of a split; what is absent is among the skipped."""
        return self.items(split), []

    def identities(self, items: Sequence[Item]) -> list[str]:
        """As the source does it."""
        return self.source.identities(items)

    def fingerprints(self, items: Sequence[Item]) -> list[str]:
        """As the source does it."""
        return self.source.fingerprints(items)

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
    from .pixels import Pixels

    folder = cache_folder()
    file = file_of(source, items, None, folder) if folder is not None else None
    kept = _kept(file) if file is not None else None
    looked = files(items)  # what is no file is drawn or was read whole
    lasting: dict[str, str] = {}
    if kept is not None:
        lasting, again = dict(kept[0]), set(kept[1])
        looked = [item for item in looked if item.key in again]
    pixels, passing = Pixels((32, 32)), {}
    for item in looked:
        try:
            source.load([item], pixels)
        except Passing as error:
            passing[item.key] = error.messages[0]
        except UserError as error:
            lasting[item.key] = error.messages[0]
    found = (lasting, list(passing))
    if found != kept:
        keep_json(file, found)
    return lasting | passing


def _kept(file: Path) -> tuple[dict[str, str], list[str]] | None:
    """What an earlier run found: key → why, of what lies in the pictures themselves, and the keys of those to
    look at again."""
    try:
        lasting, again = json.loads(file.read_text(encoding="utf-8"))
        return dict(lasting), list(again)
    except (OSError, ValueError, TypeError):
        return None
