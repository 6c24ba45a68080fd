"""What sources of pictures have in common: each picture is decoded by itself; some lie in files."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from ...errors import UserError, raise_all
from ...files import open_file
from ..items import Item, Reading, files

if TYPE_CHECKING:
    from torch import Tensor

    from .pixels import Conversion, Pixels
    from .survey import Taken
    from .value_range import ValueRange

# Threads that decode at once: each may need a gigabyte and a half for the largest picture that is read, and
# what they do in Python they do one after the other.
MOST_THREADS = 8
# Threads that decode wait for the first that finds out what deep pictures hold, and none does it again.
_asking = RLock()


class Pictures(ABC):
    """The part that every source of pictures has in common: each is decoded by itself.

    Attributes:
        range: ``[low, high]`` or bits of pictures of more than eight; None to take it from the pictures.
        background: what transparent pictures are put on.
        asks_tests: whether test pictures are asked, too, for what more than eight bits hold. Where not, and
            there are no training pictures, those that no test uses are.
        unasked: keys of the pictures that tests use, where those are not asked.
        at_once: whether threads may read different pictures at the same time.
    """

    range: int | Sequence[float] | None = None
    background: str | Sequence[int] = "white"
    asks_tests: bool = True
    unasked: frozenset[str] = frozenset()
    at_once: ClassVar[bool] = False
    _taken: tuple[Taken | None, bool] | None = None

    @property
    def family(self) -> str:
        """The kind of source, and what of it where that is no matter of a folder."""
        root = getattr(self, "root", "")
        return type(self).__name__ if isinstance(root, Path) else f"{type(self).__name__} {root}"

    @cached_property
    def origin(self) -> str:
        """The family and, where there is one, the folder that keys are found in: the same one however it is
        spelled, and another one where the same words lead elsewhere."""
        root = getattr(self, "root", "")
        return f"{self.family} {os.path.realpath(root)}" if isinstance(root, Path) else self.family

    def identities(self, items: Sequence[Item]) -> list[str]:
        """As in :class:`Source`."""
        return [f"{self.origin} {item.key}" for item in items]

    def fingerprints(self, items: Sequence[Item]) -> list[str]:
        """As in :class:`Source`."""
        return [f"{self.family} {item.key} {item.size} {self.stamp(item)}" for item in items]

    def present(self, split: str) -> tuple[list[Item], list[str]]:
        """As in :class:`Source`; nothing that is listed can be absent."""
        return self.items(split), []

    def stamp(self, item: Item) -> int | str | None:
        """None: nothing can change."""
        return None

    @abstractmethod
    def picture(self, item: Item, pixels: Pixels) -> Tensor:
        """One image, decoded, resized and cropped.

        Raises:
            UserError: naming the file that cannot be decoded.
        """

    def stored(self, item: Item) -> BinaryIO:
        """The file of a picture, open for reading; asked only of items that have a size.

        Raises:
            OSError: where it cannot be opened.
        """
        raise FileNotFoundError(item.key)

    def taken(self, thorough: bool = False) -> Taken | None:
        """What its pictures of more than eight bits hold.

        Args:
            thorough: there is one, so none is left out until it is found.
        """
        from .survey import take

        with _asking:
            if self._taken is None or (thorough and self._taken == (None, False)):
                train, test, validation = (
                    [partial(self.stored, item) for item in files(self.present(split)[0])]
                    for split in ("train", "test", "validation")
                )
                if not self.asks_tests:
                    test = [] if train else [each for each in test if each.args[0].key not in self.unasked]
                self._taken = take(train, [*test, *validation], thorough), thorough
            return self._taken[0]

    def values(self) -> ValueRange:
        """The stored values that become 0 … 255, of pictures of more than eight bits.

        Raises:
            ValueError: where no picture could be asked.
        """
        from .value_range import ValueRange

        if self.range is not None:
            return ValueRange.of_setting(self.range)
        taken = self.taken(thorough=True)
        if taken is None:
            raise ValueError("its values are of an unknown range; give range: on the source")
        return taken.values

    def concerned(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those that may have more than eight bits a channel or transparent pixels."""
        from .survey import concerned

        return concerned(files(items), lambda item: item.key, self.stored)

    def reading(self, items: Sequence[Item]) -> Reading:
        """As in :class:`Source`."""
        values = None
        if self.concerned(items) and (self.range is not None or self.taken() is not None):
            values = self.values()
        return Reading(str(self.background), (values.low, values.high) if values else None)

    @property
    def conversion(self) -> Conversion:
        """How its pictures become RGB of eight bits."""
        from .pixels import Conversion
        from .transparency import rgb_of

        return Conversion(rgb_of(self.background), self.values)

    def load(self, items: Sequence[Item], pixels: Pixels) -> Tensor:
        """Decode, resize and crop the images.

        Raises:
            UserError: naming every file that cannot be decoded.
        """
        import torch

        from .pixels import formats, hushed

        pixels = replace(pixels, conversion=self.conversion)
        threads = min(MOST_THREADS, torch.get_num_threads()) if self.at_once else 1
        if threads > 1:
            formats()  # Pillow learns them in one thread
        with hushed():
            found = _each(partial(self._picture_or_fault, pixels), items, threads)
        faults = [one for one in found if isinstance(one, UserError)]
        if len(faults) == 1:
            raise faults[0]
        raise_all([message for fault in faults for message in fault.messages])
        return torch.stack(found)

    def _picture_or_fault(self, pixels: Pixels, item: Item) -> Tensor | UserError:
        try:
            return self.picture(item, pixels)
        except UserError as error:
            return error


def _each(decode: Callable[[Item], Any], items: Sequence[Item], threads: int) -> list[Any]:
    if threads == 1 or len(items) < 2:
        return list(map(decode, items))
    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        return list(pool.map(decode, items))


class Files(Pictures):
    """Separate files: keys are paths below ``root``."""

    root: Path
    at_once = True

    def stamp(self, item: Item) -> int:
        """When the file was last written, which tells another picture of the same size."""
        return self.path_of(item).stat().st_mtime_ns

    def path_of(self, item: Item) -> Path:
        """The file of a picture."""
        return self.root / item.key

    def identities(self, items: Sequence[Item]) -> list[str]:
        """The files themselves, wherever links lead."""
        folders: dict[str, str] = {}
        found = []
        for item in items:
            folder, name = os.path.split(os.path.join(self.root, item.key))
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            path = os.path.join(folders[folder], name)
            found.append(os.path.realpath(path) if os.path.islink(path) else path)
        return found

    def stored(self, item: Item) -> BinaryIO:
        """As in the base class."""
        return open_file(self.path_of(item))

    def picture(self, item: Item, pixels: Pixels) -> Tensor:
        """As in the base class."""
        return pixels.read(self.path_of(item))
