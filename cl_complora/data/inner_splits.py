"""Class folders that hold the splits themselves: ``<class>/train/…`` and ``<class>/test/…``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from .images.picture_files import Exclude, find_pictures, is_rubbish
from .names.split_names import Roles, roles_of

Inner = dict[str, dict[str, str]]


def inner_splits(root: Path, folders: Sequence[str], exclude: Exclude) -> tuple[Inner, list[str]]:
    """How class folders are divided by folders inside them.

    Args:
        root: of the class folders.
        folders: their names.
        exclude: what to leave out.

    Returns:
        Split (``train``, ``test``) → class folder → the folder in it, empty where classes hold no splits; and
        what a user should know of it.

    Raises:
        UserError: where some classes hold splits and others do not, or one may be meant by several names.
    """
    found = {name: _inside(root, root / name, exclude) for name in folders}
    split = [name for name, roles in found.items() if roles.train and (roles.test or roles.validation)]
    whole = [name for name in split if holds_pictures(root / name / found[name].train[0])]
    if not whole and split:
        return {}, [
            f"{root}: {split[0]!r} is a class here, though it holds {_named(found[split[0]])}, with folders "
            f"in them; if it is a set of its own, give {root / split[0]}"
        ]
    if not whole:
        return {}, _told_of_sets(root, folders)
    others = [n for n in folders if n not in whole and find_pictures(root / n, exclude, root).pictures]
    if others:
        raise UserError(
            f"{root}: the class folder {whole[0]!r} holds {_named(found[whole[0]])}, and {others[0]!r} does "
            "not hold both; splits: none takes all of every class and divides it anew"
        )
    inner: Inner = {"train": {}, "test": {}}
    told, unused, stand_in = [], [], False
    for name in whole:
        roles = found[name]
        test = roles.test or roles.validation
        for role, names in (("train", roles.train), ("test", test)):
            if len(names) > 1:
                both = " and ".join(map(repr, names))
                raise UserError(f"{root / name}: {both} may both be the {role} split; rename one of them")
            inner[role][name] = names[0]
        stand_in = stand_in or not roles.test
        unused += [*roles.others, *roles.unlabelled, *(roles.validation if roles.test else ())]
        unused += ["pictures beside these folders"] if holds_pictures(root / name) else []
    both = " and ".join(repr(inner[role][whole[0]]) for role in ("train", "test"))
    told.append(f"{root}: every class is divided by the folders {both} inside it")
    if stand_in:
        told.append(f"{root}: the validation pictures serve as the test, since there is no other")
    if unused:
        told.append(f"{root}: in the class folders not used: {', '.join(dict.fromkeys(unused))}")
    return inner, told


def _inside(root: Path, folder: Path, exclude: Exclude) -> Roles:
    """The folders of a class folder that hold pictures, by what they are called."""
    return roles_of(
        name
        for name in subfolders(folder)
        if not exclude.leaves_out(folder / name, root)
        and find_pictures(folder / name, exclude, root).pictures
    )


def _told_of_sets(root: Path, folders: Sequence[str]) -> list[str]:
    """That folders may be sets of classes and no classes: all hold two or more folders of the same names."""
    inside = [frozenset(subfolders(root / name)) for name in folders]
    if len(folders) < 2 or not inside[0] or len({*inside}) > 1 or len(inside[0]) < 2:
        return []
    if any(holds_pictures(root / name) for name in folders):
        return []
    both, below = (" and ".join(map(repr, sorted(names)[:2])) for names in (folders, inside[0]))
    return [
        f"{root}: {both} are taken for classes, and each holds {below}; if those are the classes, give one "
        "as root, or two as splits: {train: …, test: …}"
    ]


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, but for those of systems and servers."""
    with os.scandir(folder) as entries:
        # A link to itself is asked by the path, for which it is no folder; the entry raises.
        return sorted(
            entry.name
            for entry in entries
            if not is_rubbish(entry.name)
            and (os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir())
        )


def leads_back(link: Path, root: Path) -> bool:
    """Whether a link leads to a folder that it lies in itself."""
    real = os.path.realpath(link)
    return os.path.commonpath([real, os.path.realpath(link.parent)]) == real or real == os.path.realpath(root)


def holds_pictures(folder: Path) -> bool:
    """Whether pictures lie in a folder itself, and not only in those below it."""
    return bool(find_pictures(folder, deep=False).pictures)


def _named(roles: Roles) -> str:
    return " and ".join(map(repr, roles.splits))
