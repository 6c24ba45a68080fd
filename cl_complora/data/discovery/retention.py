"""What a scenario that is written for somebody measures retention on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...config.sources import DatasetSource, FolderSource
from ...errors import UserError
from ..checks.plausibility import one_class
from ..folders import Folder, open_folder
from ..images.broken import Readable
from ..items import Item
from ..registry import DATASETS, open_dataset, root_of
from ..telling import counted

# Held-out sets that can stand for what a CLIP knows, the best first.
GENERAL = ("imagenet", "imagenet-v2")
# Enough for an interval of about three points.
IMAGES = 1000
# More pictures than so many in a folder are not opened to look for broken ones: that is work of minutes.
OPENED = 5000
LEFT_OUT = "cannot be read, and is left out: "


@dataclass(frozen=True)
class Retention:
    """The held-out part of a scenario.

    Attributes:
        lines: of YAML.
        note: what to say about it.
        more: what else there is to say of its pictures: first of those that cannot be read.
    """

    lines: tuple[str, ...]
    note: str
    more: tuple[str, ...] = ()


def embedded() -> Retention:
    """What the model that ships with the package knows."""
    source = "{kind: world, domain: general}"
    return Retention(
        _set("general", source, "what that model knows; your own: {kind: folder, root: …}", 300), ""
    )


def found_or_none() -> Retention:
    """ImageNet where the registry finds it, or nothing, with what to do about it."""
    tried = dict.fromkeys(str(root_of(_dataset(name), Path("."))) for name in GENERAL)
    damaged = ""
    for name in GENERAL:
        root = root_of(_dataset(name), Path("."))
        try:
            open_dataset(name, root)
        except UserError as error:
            if root.is_dir():
                damaged = damaged or f" ({error.messages[0]})"
            continue
        source = f"{{kind: dataset, name: {name}}}"
        lines = _set(name, source, f"found below {next(iter(tried))}", IMAGES, ["a photo of a {}."])
        return Retention(lines, f"retention is measured on {IMAGES} pictures of {DATASETS[name].title}")
    where = ", ".join(tried)
    return Retention(
        (
            f"# Retention is not measured: there is no ImageNet below {where}.",
            "# Name class folders of no task:",
            "#   zero_shot:",
            "#     - name: general",
            "#       source: {kind: folder, root: …}",
            "zero_shot: []",
        ),
        f"retention is not measured: there is no {'whole ' * bool(damaged)}ImageNet below {where}{damaged}"
        " (CL_COMPLORA_DATA names another place); --zero-shot FOLDER takes class folders of no task",
    )


def held_out(
    folder: Path, tasks: Sequence[Path], name: Callable[[str], str], written: Callable[[Path], str]
) -> Retention:
    """Class folders of the user's own.

    Args:
        folder: their root.
        tasks: folders that are trained on.
        name: makes a set's name of a folder's.
        written: a path as the scenario has it.

    Raises:
        UserError: where it is one of the tasks, or holds no pictures to test on.
    """
    root = folder.resolve()
    for task in tasks:
        if root == task.resolve() or root in task.resolve().parents or task.resolve() in root.parents:
            raise UserError(f"--zero-shot {folder}: holds the pictures of a task, or is within it ({task})")
    source, settings = _opened(root), [f"root: {written(root)}"]
    few = len(source.items("train")) + len(source.items("test")) <= OPENED
    pictures = Readable(source) if few else source
    synsets = len(source.folders) == 1000 and all(re.fullmatch(r"n\d{8}", one) for one in source.folders)
    if synsets:
        settings.append("names: imagenet")
    if source.divided:
        tested = pictures.items("test")
    else:
        settings.append("test_fraction: 1")
        tested = [*pictures.items("train"), *pictures.items("test")]
    if not tested:
        raise UserError(f"--zero-shot {folder}: has no test pictures")
    _refuse_deeper(folder, source, tested)
    size = f"{counted(len(source.class_names), 'class', 'classes')}, {counted(len(tested), 'picture')}"
    called = name("imagenet" if synsets else root.name)
    # Tuning measures on training pictures where there are any, and else on what the tests leave.
    whole = not (source.divided and pictures.items("train"))
    images = _tested(len(tested), len({item.label for item in tested})) if whole else IMAGES
    told = f"retention is measured on {called}: {size}"
    if whole and images == len(tested):
        told += ", and cannot be by cl-complora tune: it wants pictures that no test uses, two a class in all"
    elif images < len(tested):
        told += f", of which tests use {images}"
        told += f" and cl-complora tune {min(images, len(tested) - images)} others" if whole else ""
    lines = _set(called, f"{{kind: folder, {', '.join(settings)}}}", size, images, ["a photo of a {}."])
    notes = [f"{LEFT_OUT}{line}" for line in getattr(pictures, "skipped", ())]
    return Retention(lines, told, (*notes, *one_class(called, source.class_names)))


def _refuse_deeper(folder: Path, source: Folder, tested: Sequence[Item]) -> None:
    """Refuse a folder of sets, whose names would be classes.

    Raises:
        UserError: naming one of them.
    """
    parts = [Path(item.key).parts for item in tested]
    depth = source.depth("test" if source.parts["test"] is not None else "train")
    if min(map(len, parts)) > depth:
        raise UserError(
            f"--zero-shot {folder}: its pictures lie in folders of its folders, as in a folder of sets; give"
            f" one of them, such as {folder / Path(*parts[0][: depth - 1])}"
        )


def _tested(pictures: int, classes: int) -> int:
    """How many of the pictures of a set are for tests, so that tuning has others: three quarters, as many of
    every class, but one at least for either.

    Args:
        pictures: in all.
        classes: that have pictures.
    """
    if pictures < 2 * classes:
        return pictures
    tested = pictures - max(classes, pictures // 4)
    return min(IMAGES, tested - tested % classes)


def _opened(root: Path) -> Folder:
    try:
        return open_folder(FolderSource(kind="folder", root=str(root)), Path("."))
    except UserError as error:
        first, *more = error.messages
        raise UserError(f"--zero-shot {first}", tuple(more)) from None


def _dataset(name: str) -> DatasetSource:
    return DatasetSource(kind="dataset", name=name)


def _set(name: str, source: str, why: str, images: int, prompts: Sequence[str] = ()) -> tuple[str, ...]:
    more = [f"    prompts: {json.dumps(list(prompts))}"] if prompts else []
    return (
        "# Knowledge that should not be lost: pictures of no task, measured before and after every task.",
        "zero_shot:",
        f"  - name: {json.dumps(name, ensure_ascii=False)}",
        f"    source: {source}    # {why}",
        f"    images: {images}    # at most, spread evenly over the classes",
        *more,
    )
