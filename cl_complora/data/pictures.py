"""Where images come from. Every source lists its classes and items without loading a pixel, and loads the
chosen ones.

A new kind is a schema in ``config.source``, a class here or beside, and a line in ``_OPENERS``.
"""

from __future__ import annotations

import os
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..config.sources import (
    CoopSource,
    DatasetSource,
    FolderSource,
    ManifestSource,
    ShardsSource,
    SourceConfig,
    WorldSource,
)
from ..errors import MOST_FAULTS, UserError, raise_all
from .labels import name_fault

if TYPE_CHECKING:
    from torch import Tensor

    from .pixels import Pixels

SPLITS = ("train", "test")
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


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


def open_source(config: SourceConfig, folder: Path) -> Source:
    """The source that a configuration describes; relative paths start from ``folder``.

    Raises:
        UserError: for a missing folder, an unknown domain, a class name that cannot be one…
    """
    source = _OPENERS[config.kind](config, folder)
    named = f"{source.origin.partition(' ')[2] or config.kind}: "
    raise_all([named + fault for name in source.class_names if (fault := name_fault(name))][:MOST_FAULTS])
    return source


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
        return (self.root / item.key).stat().st_mtime_ns

    def picture(self, item: Item, pixels: Pixels) -> Tensor:
        """As in the base class."""
        return pixels.read(self.root / item.key)


class Folder(Files):
    """Images in class folders; class names are the folder names with ``_`` read as a space, or ImageNet's
    words."""

    prompts: list[str] | None = None

    def __init__(self, root: Path, test_fraction: float, names: str = "folders") -> None:
        if not root.is_dir():
            problem = "is a file, not a folder" if root.exists() else "there is no such folder"
            raise UserError(
                f"{root}: {problem}; it must hold <class>/… or train/<class>/… and test/<class>/…"
            )
        self.root, self.test_fraction = root, test_fraction
        self.divided = (root / "train").is_dir() or (root / "test").is_dir()
        present = [root / split for split in SPLITS if (root / split).is_dir()] if self.divided else [root]
        self.folders = sorted(
            {
                path.name
                for parent in present
                for path in parent.iterdir()
                if _visible(path.name) and path.is_dir()
            }
        )
        if not self.folders:
            raise UserError(f"{root}: holds no class folders")
        self.class_names = _NAMES[names](root, self.folders)

    def items(self, split: str) -> list[Item]:
        """Images of a split, by class and file name."""
        if split not in SPLITS:
            return []
        return [item for label in range(len(self.folders)) for item in self._class_items(split, label)]

    def _class_items(self, split: str, label: int) -> list[Item]:
        name = self.folders[label]
        folder = self.root / split / name if self.divided else self.root / name
        if not folder.is_dir():
            return []
        keys = [path.relative_to(self.root).as_posix() for path in pictures_below(folder)]
        if not self.divided:
            # One fixed division for every run and seed, so that no test image is ever trained on.
            random.Random(f"division/{name}").shuffle(keys)
            cut = len(keys) - round(len(keys) * self.test_fraction)
            keys = sorted(keys[:cut] if split == "train" else keys[cut:])
        return [Item(label, key, (self.root / key).stat().st_size) for key in keys]


def _imagenet_names(root: Path, folders: Sequence[str]) -> list[str]:
    """The words of the 1000 synsets, by sorted place."""
    if len(folders) != 1000 or not all(re.fullmatch(r"n\d{8}", name) for name in folders):
        raise UserError(
            f"{root}: names: imagenet needs the 1000 folders n01440764 … n15075141, found {len(folders)}"
        )
    from .registry.names import imagenet

    return imagenet([str(place) for place in range(len(folders))])


_NAMES = {
    "folders": lambda root, folders: [name.replace("_", " ") for name in folders],
    "imagenet": _imagenet_names,
}


def pictures_below(folder: Path) -> list[Path]:
    """Files below a folder that are pictures by their suffix, by their path's parts; links to folders are not
    followed.

    Raises:
        OSError: for a folder that cannot be read.
        UserError: for names that no manifest can hold.
    """
    found, faults = [], []
    for parent, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = filter(_visible, folders)
        for name in filter(_visible, files):
            path = Path(parent, name)
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                found.append(path)
                if not is_utf8(str(path)):
                    faults.append(f"{path}: the name is not UTF-8; rename this file or folder")
    raise_all(faults[:MOST_FAULTS])
    return sorted(found, key=lambda path: path.parts)


def _raise(error: OSError) -> None:
    raise error


def is_utf8(name: str) -> bool:
    """Whether a file's name can be written down; Python reads other bytes as half characters."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _visible(name: str) -> bool:
    """Not hidden: ``.ipynb_checkpoints`` and macOS's ``._name`` hold copies and rubbish."""
    return not name.startswith((".", "__MACOSX"))


def _open_world(config: WorldSource, folder: Path) -> Source:
    from ..world.source import World

    return World(config.domain)


def _open_folder(config: FolderSource, folder: Path) -> Source:
    return Folder(folder / Path(config.root).expanduser(), config.test_fraction, config.names)


def _open_manifest(config: ManifestSource, folder: Path) -> Source:
    from .manifests import open_manifest

    return open_manifest(config, folder)


def _open_coop(config: CoopSource, folder: Path) -> Source:
    from .manifests import open_coop

    return open_coop(config, folder)


def _open_shards(config: ShardsSource, folder: Path) -> Source:
    from .shards import open_shards

    return open_shards(config, folder)


def _open_dataset(config: DatasetSource, folder: Path) -> Source:
    from .registry import open_dataset

    return open_dataset(config.name, data_root(config, folder))


def data_root(config: DatasetSource, folder: Path) -> Path:
    """Where the data sets known by name lie."""
    if config.root is not None:
        return folder / Path(config.root).expanduser()
    return Path(os.environ.get("CL_COMPLORA_DATA") or "~/data").expanduser()


_OPENERS = {
    "world": _open_world,
    "folder": _open_folder,
    "manifest": _open_manifest,
    "coop": _open_coop,
    "shards": _open_shards,
    "dataset": _open_dataset,
}
