"""Class folders as a source: ``<class>/…``, ``train/<class>/…`` and ``test/<class>/…``, or
``<class>/train/…`` and ``<class>/test/…``."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from glob import escape
from itertools import islice
from pathlib import Path, PurePosixPath

from ..config.sources import FolderSource
from ..config.yaml_lines import shown
from ..errors import UserError
from .division import divided
from .images.picture_files import Exclude, Found, find_pictures, image_suffixes, is_rubbish, refuse_not_utf8
from .images.pictures import Files
from .inner_splits import holds_pictures, inner_splits, leads_back, subfolders
from .items import SPLITS, Item
from .names.split_names import role_of, roles_of
from .telling import but_for_case, counted, some, worded


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
        self.root, self.config, self._exclude = root, config, Exclude(config.exclude)
        self._told: list[str] = []
        self._found: dict[Path, list[str]] = {}
        self._listed: dict[Path, list[str]] = {}
        self._items: dict[str, list[Item]] = {}
        self._passed = Found()
        # Where the splits or classes lie: the root, or the one folder in it that holds the splits.
        self._base = root
        # Split → the folder that its classes lie in; one folder for both where this source divides it.
        self.parts = self._divide()
        # Split → the folders of that split in every class folder, where they lie there.
        self.inner: dict[str, dict[str, str]] = {}
        if config.splits == "auto" and self.parts["train"] == self.parts["test"] == root:
            self.inner, told = inner_splits(root, self._folders(root), self._exclude)
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
            raise UserError(f"{root}: holds no class folders{self._instead()}")
        self.class_names = _NAMES[config.names](root, self.folders)

    @property
    def notes(self) -> list[str]:
        """What was passed over in the splits that were asked for so far, and how the folder was
        understood."""
        # Where nothing was searched yet, nothing could be left out.
        idle = self._exclude.idle if self._found else []
        none = f"{self.root}: exclude: no file or folder that is looked at fits"
        passed = self._passed.notes(str(self.root))
        return [*self._told, *passed, *(f"{none} {shown(one)}" for one in idle), *self._too_high()]

    def _too_high(self) -> list[str]:
        """What to say where every class has folders of pictures in it and no picture beside them."""
        places = {
            folder: {key.rpartition("/")[0] for key in keys} for folder, keys in self._found.items() if keys
        }
        # A picture that lies right in its class folder has the folder itself as its place.
        nested = all(
            len(inside) > 1 and folder.relative_to(self.root).as_posix() not in inside
            for folder, inside in places.items()
        )
        if self.inner or not places or not nested:
            return []
        folder, inside = next(iter(places.items()))
        among = some(sorted(PurePosixPath(place).name for place in inside))
        return [
            f"{self.root}: the pictures of every class lie in folders within its own ({among} in"
            f" {folder.name!r}); if those are the classes, root: is a folder too high"
        ]

    def items(self, split: str) -> list[Item]:
        """Images of a split, by class and file name."""
        if split not in SPLITS:
            return []
        if split not in self._items:
            labels = range(len(self.folders))
            self._items[split] = [item for label in labels for item in self._class_items(split, label)]
        return self._items[split]

    def depth(self, split: str) -> int:
        """Parts of the key of a picture that lies right in its class folder, and not in a folder of that."""
        part = self.parts[split]
        above = () if part is None else part.relative_to(self.root).parts
        return len(above) + (3 if self.inner else 2)

    def empty(self) -> list[str]:
        """Classes whose folders hold no pictures, whatever the split."""
        filled = {item.label for split in SPLITS for item in self.items(split)}
        return [name for label, name in enumerate(self.class_names) if label not in filled]

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
            found = find_pictures(folder, self._exclude, self.root)
            self._passed.add(found)
            self._found[folder] = [path.relative_to(self.root).as_posix() for path in found.pictures]
        return list(self._found[folder])

    def absent(self, name: str) -> str:
        """What to say of a class without training pictures: where it lies instead, and what may be it."""
        place = self.class_names.index(name)
        parents = self._classes[self.folders[place]]
        if not any(self._class_items(split, place) for split in SPLITS):
            where = next(parent / folders[0] for parent, folders in parents.items())
            passed = find_pictures(where, self._exclude, self.root)
            why = f" ({'; '.join(passed.notes(str(where)))})" if passed.others else ""
            pattern = json.dumps(escape(where.name), ensure_ascii=False)
            return f"; {where} holds no pictures{why}, and exclude: [{pattern}] leaves it out"
        if not self.divided or self.inner or self.parts["train"] in parents:
            return ""
        if self.parts["train"] is None:
            there = " and ".join(repr(part.name) for part in self.parts.values() if part is not None)
            return f"; there is {there} and no 'train', which splits: may call otherwise"
        train = self.parts["train"].name
        same = but_for_case(self.folders[place], self.folders)
        told = f"; its folder lies in {next(iter(parents)).name!r} and not in {train!r}"
        there = same is not None and self.parts["train"] in self._classes[same]
        return f"{told}, where {same!r} is" if there else told

    def _instead(self) -> str:
        """What lies in a folder, or in its splits, where no class folders do."""
        parts = [part for part in dict.fromkeys(self.parts.values()) if part is not None]
        parts += [self._base / name for name in roles_of(subfolders(self._base)).splits]
        held = {part: holds_pictures(part) for part in dict.fromkeys(parts)}
        where = next((part for part in held if held[part]), None)
        if where is None:
            return ""
        what = "it" if where == self.root else where
        return f"; {what} holds pictures: give each class a folder, or list them in a table (kind: manifest)"

    def _folders(self, parent: Path) -> list[str]:
        """Class folders of a split; what systems keep beside them is counted."""
        if parent not in self._listed:
            names, stray, places = [], [], []
            for entry in sorted(os.scandir(parent), key=lambda entry: entry.name):
                if not os.path.exists(entry.path):  # a link to nothing or to itself
                    if not (is_rubbish(entry.name) or self._exclude.leaves_out(Path(entry.path), self.root)):
                        self._passed.dangling.append(Path(entry.path).relative_to(self.root).as_posix())
                elif not os.path.isdir(entry.path):
                    stray += [entry.name] if Path(entry.name).suffix.lower() in image_suffixes() else []
                elif entry.is_symlink() and leads_back(Path(entry.path), self.root):
                    self._told.append(f"{entry.path}: a link to a folder that it lies in, and passed over")
                elif is_rubbish(entry.name):
                    self._passed.rubbish[entry.name] += not entry.name.startswith(".")
                elif not self._exclude.leaves_out(Path(entry.path), self.root):
                    places.append(Path(entry.path))
                    names.append(entry.name)
            refuse_not_utf8(*places)
            stray = [
                n for n in stray if not (is_rubbish(n) or self._exclude.leaves_out(parent / n, self.root))
            ]
            if stray and names:
                lie = counted(len(stray), "picture lies", "pictures lie")
                are = worded(len(stray), "is", "are")
                such = f"{lie} in no class folder and {are} not used, such as {stray[0]}"
                self._told.append(f"{parent}: {such}")
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
            wrapped = self._wrapped()
            if wrapped is None:
                return {"train": root, "test": root}
            self._told.append(f"{root}: its splits lie in {wrapped.name!r}")
            self._base = root = wrapped
            roles = roles_of(self._folders(root))
        self._refuse_mixed(roles.splits, roles.others)
        train = self._one_of("train", roles.train)
        test, unlabelled = self._labelled(roles.test, train)
        test = self._one_of("test", test)
        validation, _ = self._labelled(roles.validation)
        for name in (*unlabelled, *roles.unlabelled):
            count = len(find_pictures(root / name).pictures)
            unused = f"{counted(count, 'picture')} without classes {worded(count, 'is', 'are')} not used"
            self._told.append(f"{root / name}: {unused}")
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
                f"{self._base}: {' and '.join(map(repr, names))} may both be the {role} split; say which "
                "with splits: {train: …, test: …}"
            )
        return _innermost(self._base / names[0]) if names else None

    def _wrapped(self) -> Path | None:
        """The one folder of the root that holds splits with class folders, as archives are often unpacked and
        where the others hold no pictures (``images/train/…`` beside ``labels/…``)."""
        names = self._folders(self.root)
        roles = {name: roles_of(subfolders(self.root / name)) for name in names}
        whole = [name for name, found in roles.items() if found.train and (found.test or found.validation)]
        if len(whole) != 1 or not _holds_classes(_innermost(self.root / whole[0] / roles[whole[0]].train[0])):
            return None
        others = [self.root / name for name in names if name != whole[0]]
        return None if any(find_pictures(o, self._exclude).pictures for o in others) else self.root / whole[0]

    def _labelled(self, names: Sequence[str], train: Path | None = None) -> tuple[list[str], list[str]]:
        """Splits with class folders, and those whose pictures have no classes: not in folders, or all in one
        that is none of the classes (``test/unknown``)."""
        known = {name.casefold() for name in subfolders(train)} if train is not None else set()
        labelled, unlabelled = [], []
        for name in names:
            folder = _innermost(self._base / name)
            # One, or more: no class beyond the second is walked through.
            inside = list(islice((n for n in subfolders(folder) if find_pictures(folder / n).pictures), 2))
            foreign = len(inside) == 1 and len(known) > 1 and inside[0].casefold() not in known
            (labelled if inside and not foreign else unlabelled).append(name)
        return labelled, unlabelled

    def _refuse_mixed(self, splits: Sequence[str], others: Sequence[str]) -> None:
        """A class called ``train`` is no split.

        Raises:
            UserError: where folders called like splits stand among class folders.
        """
        pictured = [name for name in others if find_pictures(self._base / name, self._exclude).pictures]
        if not pictured:
            return
        direct = [name for name in splits if not _holds_classes(_innermost(self._base / name))]
        if direct or len(splits) == 1:
            raise UserError(self._mixed(splits[0], pictured, bool(direct)))
        self._told.append(
            f"{self._base}: {', '.join(pictured[:3])} beside {' and '.join(splits)} is not used"
        )

    def _mixed(self, split: str, others: Sequence[str], direct: bool) -> str:
        """What to say of a folder called like a split among others; first what no scenario is needed for.

        Args:
            split: the folder.
            others: those that are not called so, and hold pictures.
            direct: whether pictures lie in it directly, as in a class.
        """
        beside = f"{', '.join(others[:3])}{' …' if len(others) > 3 else ''}"
        ways = [f"if {split!r} is a class, rename it, or set splits: none"]
        if not direct and len(others) == 1 and _holds_classes(self._base / others[0]):
            other, role = others[0], "test" if role_of(split) == "train" else "train"
            both = (split, other) if role == "test" else (other, split)
            train, test = ((self._base / name).relative_to(self.root).as_posix() for name in both)
            set_both = f"set splits: {{train: {train}, test: {test}}}"
            ways.append(f"if {other!r} is the {role} split, rename it {role!r}, or {set_both}")
        them = worded(len(others), "it", "them")
        ways.append(f"to use {split!r} alone, move {beside} away, or name {them} in exclude")
        where = f"splits and exclude stand in a scenario: source: {{kind: folder, root: {self.root}, …}}"
        return (
            f"{self._base}: {split!r} is called like a split, and {beside} beside it"
            f" {worded(len(others), 'is', 'are')} not; {'; '.join(ways)} ({where})"
        )


def _innermost(folder: Path) -> Path:
    """The folder, or the one in it that repeats its name alone, as archives are often unpacked."""
    inside = subfolders(folder)
    same = [name for name in inside if role_of(name) == role_of(folder.name)]
    return folder / same[0] if len(inside) == 1 and same else folder


def _holds_classes(folder: Path) -> bool:
    return any(find_pictures(folder / name).pictures for name in subfolders(folder))


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
