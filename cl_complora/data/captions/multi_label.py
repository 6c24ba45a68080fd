"""Pictures that may show several classes: what mAP is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...config.sources import MultiLabelSource
from ...config.yaml_lines import shown
from ...errors import UserError
from ...files import is_utf8, json_lines
from ..items import Item
from ..labels import name_fault
from ..tables.manifests import Listed, Malformed, inside, refuse_no_folder, roots_of
from ..telling import Faults, counted
from .captioned import TEST

MAX_LINES = 2**30
_EXAMPLE = '{"image": "a.jpg", "labels": ["cat", "dog"]}'


class MultiLabelled(Listed):
    """Files of pictures, each with any number of classes; all are test images.

    Args:
        root: folder that the paths start from.
        class_names: in label order.
        labels: path below the root → places of its classes, in the file's order.
        places: where each of them stands in the file.
        notes: what a user should know of how the file was read, a line each.
    """

    def __init__(
        self,
        root: Path,
        class_names: Sequence[str],
        labels: dict[str, tuple[int, ...]],
        places: Sequence[str],
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(root, class_names, [(TEST, key, 0) for key in labels], notes, places.__getitem__)
        self._labels = labels

    def labels(self, item: Item) -> tuple[int, ...]:
        """Places of the classes that a picture shows; ascending."""
        return self._labels[item.key]


def open_multi_label(config: MultiLabelSource, folder: Path) -> MultiLabelled:
    """Pictures and classes of a file of JSON lines ``{"image": …, "labels": [class, …]}``.

    An empty list says that a picture shows none of the classes.

    Raises:
        UserError: naming file and line of every fault, up to twenty: no labels, an unknown class, a class or
            a picture that stands there twice, a path that leaves the root…
    """
    file = folder / Path(config.file).expanduser()
    root = folder / Path(config.root).expanduser() if config.root is not None else file.parent
    refuse_no_folder(root, "names")
    named, places = _labels_by_image(file, roots_of(root), config.classes)
    shown_classes = {name for names in named.values() for name in names}
    classes = list(config.classes) if config.classes is not None else sorted(shown_classes)
    if len(named) < 2 or len(classes) < 2:
        told = f"{counted(len(named), 'image')} and {counted(len(classes), 'class', 'classes')}"
        raise UserError(f"{file}: names {told}; scores of several classes need two of each at least")
    place = {name: label for label, name in enumerate(classes)}
    labels = {key: tuple(sorted(place[name] for name in names)) for key, names in named.items()}
    absent = [name for name in classes if name not in shown_classes]
    notes = []
    if absent:
        notes.append(
            f"{file}: no picture shows {', '.join(map(repr, absent[:4]))}"
            + (f" and {len(absent) - 4} more classes" if len(absent) > 4 else "")
            + "; a class without positives is left out of mAP"
        )
    return MultiLabelled(root, classes, labels, list(places.values()), notes)


def _labels_by_image(
    file: Path, roots: Sequence[str], classes: Sequence[str] | None
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Path of every picture → its class names, and → where it stands in the file.

    Raises:
        UserError: naming up to twenty faults.
    """
    found: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    faults = Faults(file)
    for number, row in json_lines(file, MAX_LINES):
        place = f"{file}:{number}"
        try:
            key, names = _checked(row, roots, classes)
            if key in found:
                raise Malformed(f"image {shown(row['image'])} is named a second time, after {first[key]}")
            found[key], first[key] = names, place
        except Malformed as fault:
            faults.add(f"{place}: {fault}")
    faults.refuse()
    return found, first


def _checked(row: Any, roots: Sequence[str], classes: Sequence[str] | None) -> tuple[str, list[str]]:
    """A picture's path below the root, and its class names.

    Raises:
        Malformed: saying what is wrong with the row.
    """
    if not isinstance(row, dict):
        raise Malformed(f"must be a JSON object such as {_EXAMPLE}")
    for key in ("image", "labels"):
        if key not in row:
            has = ", ".join(map(str, row)) or "nothing"
            raise Malformed(f"has no {key} (it has {has[:100]}); must be such as {_EXAMPLE}")
    image, labels = row["image"], row["labels"]
    if not isinstance(image, str) or not image.strip():
        raise Malformed(f"image must be the name of a picture, got {shown(image)}")
    if not isinstance(labels, list):
        raise Malformed(f'labels must be a list of class names such as ["cat", "dog"], got {shown(labels)}')
    for name in labels:
        if not isinstance(name, str) or not name.strip() or not is_utf8(name):
            raise Malformed(f"a label of image {shown(image)} must be a class name, got {shown(name)}")
        if classes is not None and name not in classes:
            known = ", ".join(map(repr, classes[:8])) + (" …" if len(classes) > 8 else "")
            raise Malformed(f"label {shown(name)} is none of the source's classes: {known}")
        if classes is None and (fault := name_fault(name)):
            raise Malformed(fault)
        if labels.count(name) > 1:
            raise Malformed(f"label {shown(name)} stands twice under image {shown(image)}")
    return inside(image, roots), labels
