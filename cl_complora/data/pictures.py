"""What a picture, an item and a source are; below whoever opens a kind of source, which ``data.kinds``
knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import UserError, raise_all

if TYPE_CHECKING:
    from torch import Tensor

    from .pixels import Pixels

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Item:
    """One image of a source.

    Attributes:
        label: index into the source's class names.
        key: what the source needs to load it and what the split manifest records (a relative path, say).
        size: bytes of the file, so that a manifest notices pictures that were exchanged; None where there is
            no file.
        order: place in the source's own list, where some samplers need it.
    """

    label: int
    key: str
    size: int | None = None
    order: int = field(default=0, compare=False)


class Source(Protocol):
    """What every data source answers."""

    class_names: list[str]
    prompts: list[str] | None

    @property
    def origin(self) -> str:
        """What tells this source's pictures from others of the same key and size."""

    def items(self, split: str) -> list[Item]:
        """All images of ``train``, ``test`` or, where there is one, ``validation``, in a fixed order."""

    def stamp(self, item: Item) -> int | str | None:
        """What changes when a picture is exchanged for another of the same size; None where there is no
        file."""

    def load(self, items: Sequence[Item], pixels: Pixels) -> Tensor:
        """``N × 3 × H × W`` uint8, after the model's deterministic resize and crop."""


class Pictures(ABC):
    """The part that every source of pictures has in common: each is decoded by itself."""

    @property
    def origin(self) -> str:
        """The kind of source and, where there is one, the folder or domain that its keys are found in."""
        return f"{type(self).__name__} {getattr(self, 'root', '')}"

    def stamp(self, item: Item) -> int | str | None:
        """None: nothing can change."""
        return None

    @abstractmethod
    def picture(self, item: Item, pixels: Pixels) -> Tensor:
        """One image, decoded, resized and cropped.

        Raises:
            UserError: naming the file that cannot be decoded.
        """

    def load(self, items: Sequence[Item], pixels: Pixels) -> Tensor:
        """Decode, resize and crop the images.

        Raises:
            UserError: naming every file that cannot be decoded.
        """
        import torch

        decoded, faults = [], []
        for item in items:
            try:
                decoded.append(self.picture(item, pixels))
            except UserError as error:
                faults += error.messages
        raise_all(faults)
        return torch.stack(decoded)


class Files(Pictures):
    """Separate files: keys are paths below ``root``."""

    root: Path

    def stamp(self, item: Item) -> int:
        """When the file was last written, which tells another picture of the same size."""
        return self.path_of(item).stat().st_mtime_ns

    def path_of(self, item: Item) -> Path:
        """The file of a picture."""
        return self.root / item.key

    def picture(self, item: Item, pixels: Pixels) -> Tensor:
        """As in the base class."""
        return pixels.read(self.path_of(item))
