"""Which of the folders that somebody names are tasks: each itself, or the folders in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...config.sources import FolderSource
from ...errors import UserError
from ..folders import open_folder
from ..hub.hub_folders import hub_folder
from ..images.picture_files import find_pictures, is_rubbish, refuse_not_utf8
from ..names.split_names import roles_of
from ..telling import counted
from .found_tables import how_to_use, is_table, tables_in, usable_table


def task_folders(folders: Sequence[Path]) -> list[Path]:
    """The folders of all tasks, in the order in which they are named.

    Args:
        folders: each a task, or a folder of tasks.

    Raises:
        UserError: where one is missing or holds no pictures, where two share pictures, and where two are the
            splits of one set.
    """
    found = [(root, folder) for folder in folders for root in _roots(folder)]
    _refuse_shared(found)
    roots = [root for root, _ in found]
    _refuse_splits(roots)
    return roots


def _refuse_shared(found: Sequence[tuple[Path, Path]]) -> None:
    """Refuse pictures in two tasks: what the one is tested on, the other would train on.

    Args:
        found: the folder of every task, and the one that was named for it.

    Raises:
        UserError: naming both.
    """
    places = [(root.resolve(), root, named) for root, named in found]
    for at, (place, root, named) in enumerate(places):
        for earlier, other, by in places[:at]:
            if place == earlier:
                # Of a folder of tasks that is named twice, each of its tasks is; one message will do.
                twice = f"{named if named == by else root}: is given twice"
                told = twice if root == other else f"{other} and {root}: are one folder"
                raise UserError(f"{told}, and its pictures would be in two tasks; give it once")
            nested = place in earlier.parents or earlier in place.parents
            # Parquet files are no pictures in folders: what lies beside or below them is another set.
            if nested and not (hub_folder(place) or hub_folder(earlier)):
                inner, outer = (root, other) if earlier in place.parents else (other, root)
                raise UserError(
                    f"{inner}: lies in {outer}, which is a task itself, so that its pictures would be in two"
                    " tasks; give one of them"
                )


def _roots(folder: Path) -> list[Path]:
    """The folder itself where its folders are classes, or a table names them; or the folders in it that are
    sets of classes."""
    if not folder.is_dir():
        hint = f"; {how_to_use(folder)}" if is_table(folder) else ""
        problem = f"is a file, and no folder{hint}" if folder.exists() else "there is no such folder"
        raise UserError(f"{folder}: {problem}")
    refuse_not_utf8(folder)
    try:
        if _is_task(folder):
            return [folder]
    except UserError as error:
        if usable_table(folder) is None:
            raise UserError(f"{error.messages[0]}{_hint(folder)}", error.messages[1:]) from None
        return [folder]
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and not is_rubbish(path.name)]
    refuse_not_utf8(*inside)
    sets = [path for path in inside if _is_task(path)]
    if not sets and usable_table(folder) is not None:
        return [folder]
    if not sets:
        raise UserError(
            f"{folder}: holds no class folders with pictures (<class>/…, train/<class>/… and "
            f"test/<class>/…, or <class>/train/… and <class>/test/…), nor Parquet files{_hint(folder)}"
        )
    return sets


def passed_over(folders: Sequence[Path], roots: Sequence[Path]) -> list[str]:
    """What to say of pictures beside the tasks of a folder of tasks: deeper than those of class folders.

    Args:
        folders: that were named.
        roots: of the tasks that were found in them.
    """
    lines = []
    for folder in folders:
        taken = {root.name for root in roots if root != folder and root.parent == folder}
        for inside in sorted(folder.iterdir()) if taken else ():
            if inside.name in taken or not inside.is_dir() or is_rubbish(inside.name):
                continue
            number = len(find_pictures(inside).pictures)
            if number:
                lines.append(
                    f"{inside}: holds {counted(number, 'picture')}, but not as class folders do, and is left"
                    " out; name the folder in it that does"
                )
    return lines


def _hint(folder: Path) -> str:
    """What else may be meant where no class folders are found."""
    tables = tables_in(folder)
    if tables:
        return f"; {how_to_use(tables[0])}"
    if any(folder.glob("*.tar")):
        return "; shards are read with source: {kind: shards, train: …, test: …} in the scenario"
    return ""


def _is_task(folder: Path) -> bool:
    return hub_folder(folder) is not None or _holds_classes(folder)


def _holds_classes(folder: Path) -> bool:
    """Whether pictures lie exactly where those of class folders lie, and not deeper, as in a folder of sets.

    Raises:
        UserError: where the folder cannot be divided without a word.
    """
    if not any(path.is_dir() and not is_rubbish(path.name) for path in folder.iterdir()):
        return False
    source = open_folder(FolderSource(kind="folder", root=str(folder.resolve())), Path("."))
    for split, part in source.parts.items():
        if part is not None:
            depth = source.depth(split)
            if any(len(Path(item.key).parts) == depth for item in source.items(split)):
                return True
    return False


def _refuse_splits(roots: Sequence[Path]) -> None:
    """Refuse the splits of one data set given as tasks: what one is tested on another would train on.

    Raises:
        UserError: naming them.
    """
    for parent in {root.resolve().parent for root in roots}:
        roles = roles_of(root.name for root in map(Path.resolve, roots) if root.parent == parent)
        if roles.train and (roles.test or roles.validation):
            one, other = roles.train[0], [*roles.test, *roles.validation][0]
            raise UserError(
                f"{parent}: {one!r} and {other!r} are called like the splits of one set of pictures; "
                f"give {parent} for one task, or rename them if they are two"
            )
