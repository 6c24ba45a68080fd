"""Class folders as a source: ``<class>/…``, ``train/<class>/…`` and ``test/<class>/…``, or
``<class>/train/…`` and ``<class>/test/…``."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ..config.sources import FolderSource
from ..errors import UserError
from .division import divided
from .inner_splits import inner_splits
from .items import SPLITS, Item
from .picture_files import Found, find_pictures, is_excluded, is_rubbish, refuse_not_utf8
from .pictures import Files
from .split_names import role_of, roles_of


class Folder(Files):
    """Images in class folders; class names are the folder names with ``_`` read as a space, or ImageNet's
    words.

    Folders called like splits, in any of the usual spellings, divide the pictures; without them every
    class is divided here. Folders whose names differ in their Unicode form alone (a copy made on a Mac)
    are one class.

    Args:
        config: the folder and how it is read.
        root: the folder, found.

    Attributes:
        notes: what was passed over, and what was taken for what.

    Raises:
        UserError: for a folder that is missing, holds no class folders, or cannot be divided without a word.
    """

    prompts: list[str] | None = None

    def __init__(self, config: FolderSource, root: Path) -> None:
        if not root.is_dir():
            problem = "is a file, not a folder" if root.exists() else "there is no such folder"
            raise UserError(
                f"{root}: {problem}; it must hold <class>/… or train/<class>/… and test/<class>/…"
            )
        self.root, self.config = root, config
        self._told: list[str] = []
        self._found: dict[Path, list[str]] = {}
        self._listed: dict[Path, list[str]] = {}
        self._passed = Found()
        # Split → the folder that its classes lie in; one folder for both where this source divides it.
        self.parts = self._divide()
        # Split → the folders of that split in every class folder, where they lie there.
        self.inner: dict[str, dict[str, str]] = {}
        if config.splits == "auto" and self.parts["train"] == self.parts["test"] == root:
            self.inner, told = inner_splits(root, self._folders(root), config.exclude)
            self._told += told
        self.divided = self.parts["train"] != self.parts["test"] or bool(self.inner)
        self._classes: dict[str, dict[Path, list[str]]] = defaultdict(dict)
        for parent in dict.fromkeys(part for part in self.parts.values() if part is not None):
            for name in self._folders(parent):
                self._classes[unicodedata.normalize("NFC", name)].setdefault(parent, []).append(name)
        self.folders = sorted(self._classes)
        if self.folders and all(name.isdecimal() for name in self.folders):
            self.folders.sort(key=int)  # 10 stands after 2, whatever their texts do
        if not self.folders:
            raise UserError(f"{root}: holds no class folders")
        self.class_names = _NAMES[config.names](root, self.folders)

    @property
    def notes(self) -> list[str]:
        """What was passed over in the splits that were asked for so far, and how the folder was
        understood."""
        return [*self._told, *self._passed.notes(str(self.root))]

    def items(self, split: str) -> list[Item]:
        """Images of a split, by class and file name."""
        if split not in SPLITS:
            return []
        return [item for label in range(len(self.folders)) for item in self._class_items(split, label)]

    def _class_items(self, split: str, label: int) -> list[Item]:
        name, parent = self.folders[label], self.parts[split]
        if parent is None:
            return []
        places = [parent / folder for folder in self._classes[name].get(parent, ())]
        if self.inner:
            places = [
                place / self.inner[split][place.name] for place in places if place.name in self.inner[split]
            ]
        keys = [key for place in places for key in self._keys(place)]
        if not self.divided:
            keys = divided(keys, name, self.config.test_fraction)[SPLITS.index(split)]
        return [Item(label, key, (self.root / key).stat().st_size) for key in keys]

    def _keys(self, folder: Path) -> list[str]:
        if folder not in self._found:
            found = find_pictures(folder, self.config.exclude, self.root)
            self._passed.add(found)
            self._found[folder] = [path.relative_to(self.root).as_posix() for path in found.pictures]
        return list(self._found[folder])

    def _folders(self, parent: Path) -> list[str]:
        """Class folders of a split; what systems keep beside them is counted."""
        if parent not in self._listed:
            names = []
            for entry in sorted(os.scandir(parent), key=lambda entry: entry.name):
                if not entry.is_dir():
                    continue
                if is_rubbish(entry.name):
                    self._passed.rubbish[entry.name] += not entry.name.startswith(".")
                elif not is_excluded(Path(entry.path), self.root, self.config.exclude):
                    refuse_not_utf8(Path(entry.path))
                    names.append(entry.name)
            self._listed[parent] = names
        return self._listed[parent]

    def _divide(self) -> dict[str, Path | None]:
        root, splits = self.root, self.config.splits
        if splits == "none":
            return {"train": root, "test": root}
        if splits != "auto":
            chosen = {split: root / getattr(splits, split) for split in SPLITS}
            missing = [folder for folder in chosen.values() if not folder.is_dir()]
            if missing:
                raise UserError(f"{missing[0]}: there is no such folder, which splits names")
            return chosen
        roles = roles_of(self._folders(root))
        if not roles.splits:
            return {"train": root, "test": root}
        self._refuse_mixed(roles.splits, roles.others)
        train = self._one_of("train", roles.train)
        test, unlabelled = self._labelled([*roles.test])
        test = self._one_of("test", test)
        validation, _ = self._labelled(roles.validation)
        for name in (*unlabelled, *roles.unlabelled):
            count = len(find_pictures(root / name).pictures)
            self._told.append(f"{root / name}: {count} pictures without classes are not used")
        if test is None and validation:
            test = self._one_of("test", validation)
            self._told.append(f"{test}: serves as the test, since there is no other")
        elif validation:
            self._told.append(f"{root / validation[0]}: is not used; {test.name} is the test")
        if test is None and train is not None and not unlabelled:
            self._told.append(f"{train}: there is no test beside it; a share of every class is set apart")
        if test is None:
            if train is None:
                raise UserError(f"{root}: {', '.join(roles.splits)} hold no class folders with pictures")
            if unlabelled:
                share = f"{100 * self.config.test_fraction:g} %"
                self._told.append(f"{train}: {share} of every class is set apart for the test instead")
            return {"train": train, "test": train}
        return {"train": train, "test": test}

    def _one_of(self, role: str, names: Sequence[str]) -> Path | None:
        """The folder of a role, or the one in it that repeats its name (``seg_train/seg_train``).

        Raises:
            UserError: where there are several.
        """
        if len(names) > 1:
            raise UserError(
                f"{self.root}: {' and '.join(map(repr, names))} may both be the {role} split; say which with "
                f"splits: {{train: …, test: …}}"
            )
        return _innermost(self.root / names[0]) if names else None

    def _labelled(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """Splits with class folders, and those whose pictures have no classes."""
        labelled, unlabelled = [], []
        for name in names:
            folder = _innermost(self.root / name)
            (labelled if _holds_classes(folder) else unlabelled).append(name)
        return labelled, unlabelled

    def _refuse_mixed(self, splits: Sequence[str], others: Sequence[str]) -> None:
        """A class called ``train`` is no split.

        Raises:
            UserError: where folders called like splits stand among class folders.
        """
        pictured = [name for name in others if find_pictures(self.root / name, self.config.exclude).pictures]
        if not pictured:
            return
        direct = [name for name in splits if not _holds_classes(_innermost(self.root / name))]
        if direct or len(splits) == 1:
            raise UserError(
                f"{self.root}: {splits[0]!r} is called like a split and stands among "
                f"{', '.join(pictured[:3])}; "
                "if it is a class, set splits: none; if it is a split, move the others away or name them in "
                "exclude"
            )
        self._told.append(f"{self.root}: {', '.join(pictured[:3])} beside {' and '.join(splits)} is not used")


def _innermost(folder: Path) -> Path:
    """The folder, or the one in it that repeats its name alone, as archives are often unpacked."""
    inside = [path for path in folder.iterdir() if path.is_dir() and not is_rubbish(path.name)]
    same = [path for path in inside if role_of(path.name) == role_of(folder.name)]
    return same[0] if len(inside) == 1 and same else folder


def _holds_classes(folder: Path) -> bool:
    return any(
        path.is_dir() and not is_rubbish(path.name) and find_pictures(path).pictures
        for path in sorted(folder.iterdir())
    )


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
    return Folder(config, folder / Path(config.root).expanduser())
