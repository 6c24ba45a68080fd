"""Readers: from what lies on the disk to a ``Part``, through torchvision's own classes wherever there is
one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..images.picture_files import pictures_below
from .dataset import Part, place

Reader = Callable[[Path, str], Part]


def torchvision(
    kind: str, train: Sequence[dict[str, Any]] = ({},), test: Sequence[dict[str, Any]] = ({},)
) -> Reader:
    """A reader by ``torchvision.datasets.<kind>``.

    Args:
        kind: name of the class.
        train: arguments for every piece of the training split (train and val, say).
        test: the same for the test split; also those for ``all``, where there is no official split.
    """

    def read(root: Path, split: str) -> Part:
        from torchvision import datasets

        pieces = [
            getattr(datasets, kind)(str(root), download=False, **arguments)
            for arguments in (train if split == "train" else test)
        ]
        own = [list(getattr(piece, "categories", None) or getattr(piece, "classes", ())) for piece in pieces]
        if any(names != own[0] for names in own):
            raise UserError(f"the pieces of its {split} split list different classes")
        if hasattr(pieces[0], "data"):
            return Part(own[0], _ints(pieces[0].targets), pictures=_array(pieces[0].data))
        listed = [pair for piece in pieces for pair in _listed(piece)]
        return Part(own[0], _ints(label for _, label in listed), [Path(file) for file, _ in listed])

    def fetch(root: Path) -> None:
        from torchvision import datasets

        for arguments in (*train, *test):
            getattr(datasets, kind)(str(root), download=True, **arguments)

    read.fetch = fetch
    return read


def by_split(**arguments: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """``by_split(train=["train", "val"], test=["test"])`` as arguments for ``torchvision``."""
    return {ours: [{"split": theirs} for theirs in names] for ours, names in arguments.items()}


BY_FLAG = {"train": [{"train": True}], "test": [{"train": False}]}


def _listed(piece: Any) -> list[tuple[str | Path, int]]:
    """(file, label) of a torchvision object that reads files; each class keeps its list under another
    name."""
    if hasattr(piece, "categories"):  # Caltech101 counts the files of a folder and trusts them to be numbered
        folder = Path(piece.root) / "101_ObjectCategories"
        named = [
            folder / piece.categories[label] / f"image_{number:04d}.jpg"
            for label, number in zip(piece.y, piece.index, strict=True)
        ]
        return list(zip(named, piece.y, strict=True))
    for pairs in ("_samples", "samples"):
        if hasattr(piece, pairs):
            return list(getattr(piece, pairs))
    return list(
        zip(piece._images if hasattr(piece, "_images") else piece._image_files, piece._labels, strict=True)
    )


def _ints(labels: Any) -> list[int]:
    """Some labels come as uint8 of a .mat file or as tensors, which no JSON holds."""
    return [int(label) for label in labels]


def _array(data: Any) -> Any:
    return data.numpy() if hasattr(data, "numpy") else data


def folders(test: str, train: str = "") -> Reader:
    """A reader of class folders that all lie in one folder for each split.

    Args:
        test: where they lie below the root, alternatives separated by ``|``; also for ``all``.
        train: the same for training; empty where there is none.
    """

    def read(root: Path, split: str) -> Part:
        wanted = train if split == "train" else test
        folder = place(root, wanted) if wanted else None
        return _class_folders(folder) if folder is not None else Part([], [])

    return read


def _class_folders(folder: Path) -> Part:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if all(
        name.isdecimal() for name in names
    ):  # ImageNet-V2 numbers them 0 … 999, of which 10 sorts before 2
        names.sort(key=int)
    # Not torchvision's make_dataset, which follows links round in circles.
    listed = [(label, file) for label, name in enumerate(names) for file in pictures_below(folder / name)]
    return Part(names, [label for label, _ in listed], [file for _, file in listed])


def midframes(folder: str) -> Reader:
    """UCF101's middle frames, split as its first official list does: groups 1 to 7 of every class are for
    testing.

    Clips of a group are cut from one video, so that a division by frames would test on what was trained on.
    """

    def read(root: Path, split: str) -> Part:
        part = _class_folders(root / folder)
        kept = [i for i, file in enumerate(part.files) if (_group(file) <= 7) == (split == "test")]
        return Part(part.classes, [part.labels[i] for i in kept], [part.files[i] for i in kept])

    return read


def _group(file: Path) -> int:
    found = re.search(r"_g(\d+)_c\d+", file.stem)
    if found is None:
        raise UserError(
            f"{file.name} is not named v_<Class>_g<group>_c<clip>, so that its split cannot be told"
        )
    return int(found.group(1))
