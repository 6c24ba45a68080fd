"""What a scenario that is written for somebody measures retention on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...config.sources import DatasetSource, FolderSource
from ...errors import UserError
from ..folders import Folder, open_folder
from ..registry import DATASETS, open_dataset, root_of
from ..telling import counted

# Held-out sets that can stand for what a CLIP knows, the best first.
GENERAL = ("imagenet", "imagenet-v2")
# Enough for an interval of about three points.
IMAGES = 1000


@dataclass(frozen=True)
class Retention:
    """The held-out part of a scenario.

    Attributes:
        lines: of YAML.
        note: what to say about it.
    """

    lines: tuple[str, ...]
    note: str


def embedded() -> Retention:
    """What the model that ships with the package knows."""
    source = "{kind: world, domain: general}"
    return Retention(
        _set("general", source, "what that model knows; your own: {kind: folder, root: …}", 300), ""
    )


def found_or_none() -> Retention:
    """ImageNet where the registry finds it, or nothing, with what to do about it."""
    tried = dict.fromkeys(str(root_of(_dataset(name), Path("."))) for name in GENERAL)
    for name in GENERAL:
        try:
            open_dataset(name, root_of(_dataset(name), Path(".")))
        except UserError:
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
        f"retention is not measured: there is no ImageNet below {where} (CL_COMPLORA_DATA names another"
        " place); --zero-shot FOLDER takes class folders of no task",
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
    synsets = len(source.folders) == 1000 and all(re.fullmatch(r"n\d{8}", one) for one in source.folders)
    if synsets:
        settings.append("names: imagenet")
    if source.divided:
        tested = source.items("test")
    else:
        settings.append("test_fraction: 1")
        tested = [*source.items("train"), *source.items("test")]
    if not tested:
        raise UserError(f"--zero-shot {folder}: has no test pictures")
    size = f"{counted(len(source.class_names), 'class', 'classes')}, {counted(len(tested), 'picture')}"
    called = name("imagenet" if synsets else root.name)
    # Tuning measures on training pictures where there are any, and else on what the tests leave.
    whole = not (source.divided and source.items("train"))
    images = _tested(len(tested), len({item.label for item in tested})) if whole else IMAGES
    told = f"retention is measured on {called}: {size}"
    if whole and images == len(tested):
        told += ", and cannot be by cl-complora tune: it wants pictures that no test uses, two a class in all"
    elif images < len(tested):
        told += f", of which tests use {images}"
        told += f" and cl-complora tune {min(images, len(tested) - images)} others" if whole else ""
    lines = _set(called, f"{{kind: folder, {', '.join(settings)}}}", size, images, ["a photo of a {}."])
    return Retention(lines, told)


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
