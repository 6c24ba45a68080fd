"""Class folders as a source: ``<class>/…``, or ``train/<class>/…`` and ``test/<class>/…``."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

from ..config.sources import FolderSource
from ..errors import UserError
from .pictures import SPLITS, Files, Item, is_visible, pictures_below


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
                if is_visible(path.name) and path.is_dir()
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


def open_folder(config: FolderSource, folder: Path) -> Folder:
    """Class folders; a relative path starts from ``folder``.

    Raises:
        UserError: for a folder that is missing or holds no class folders.
    """
    return Folder(folder / Path(config.root).expanduser(), config.test_fraction, config.names)
