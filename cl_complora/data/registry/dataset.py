"""What the registry says of a data set, and the source that reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ..division import divided
from ..images.pictures import Files, Pictures
from ..items import SPLITS, Item
from .names import Words, spaced

if TYPE_CHECKING:
    from torch import Tensor

    from ..images.pixels import Pixels


@dataclass(frozen=True)
class Part:
    """One split as a reader lists it, before any picture is decoded.

    Attributes:
        classes: the data set's own class names in label order, empty where it has numbers only.
        labels: one for every picture.
        files: one for every picture, or
        pictures: the pictures themselves, for data sets that come in one block (``N × H × W`` or ``N × H × W
            × 3``).
    """

    classes: list[str]
    labels: list[int]
    files: list[Path] = field(default_factory=list)
    pictures: Any = None


@dataclass(frozen=True)
class Dataset:
    """A data set known by name.

    Attributes:
        name: what scenarios call it.
        title: what people call it.
        classes: number of classes.
        templates: CLIP's published prompt templates.
        train: pictures to train on; 0 for a pure test set.
        test: pictures to test on. Of a divided set only the sum with ``train`` is sure: every class is
            rounded.
        layout: what must lie where below the root.
        get: where the data come from.
        needs: paths below the root without which reading cannot start, alternatives separated by ``|``.
        read: lists the pictures of a split; of a divided set it is asked for ``all``.
        words: from the data set's own class names to those in prompts.
        test_share: share of every class that is kept for testing where there is no official split, else None.
        train_optional: the training pictures may be absent (ImageNet, when only its validation set is used).
    """

    name: str
    title: str
    classes: int
    templates: tuple[str, ...]
    train: int
    test: int
    layout: str
    get: str
    needs: tuple[str, ...]
    read: Callable[[Path, str], Part]
    words: Words = spaced
    test_share: float | None = None
    train_optional: bool = False

    def fault(self, root: Path, problem: str) -> UserError:
        """The one line that says what is wrong, what should be there and where it comes from."""
        return UserError(f"{self.name}: {problem}; expected below {root}: {self.layout}; get it: {self.get}")


def place(root: Path, alternatives: str) -> Path | None:
    """The first of ``a|b`` that exists below ``root``."""
    return next((root / path for path in alternatives.split("|") if (root / path).exists()), None)


class Registered(Files):
    """A data set of the registry as a ``Source``; its test split is listed at once, the training split when
    asked for.

    Raises:
        UserError: for data that are missing or do not fit together.
    """

    def __init__(self, dataset: Dataset, root: Path) -> None:
        self.dataset, self.root = dataset, root
        self._parts: dict[str, Part] = {}
        self._items: dict[str, list[Item]] = {}
        if not root.is_dir():
            raise dataset.fault(root, "there is no such folder")
        for path in dataset.needs:
            found = place(root, path)
            if found is None:
                raise dataset.fault(root, f"{' or '.join(path.split('|'))} is missing")
            if not (found.is_dir() or found.is_file()):
                raise dataset.fault(root, f"{found} is no regular file")
        tested = self._part("test")
        self.class_names = self._names(tested)
        self._in_block = tested.pictures is not None
        self.prompts: list[str] | None = list(dataset.templates)

    @property
    def family(self) -> str:
        """With the data set: several may lie in one folder, and pictures in a block have only numbers."""
        return f"{type(self).__name__} {self.dataset.name}"

    def identities(self, items: Sequence[Item]) -> list[str]:
        """As in the base class, of what is no file by its place in the block."""
        return Pictures.identities(self, items) if self._in_block else super().identities(items)

    def items(self, split: str) -> list[Item]:
        """Images of a split: by class and path, or in the order of the block that they come in."""
        if split not in SPLITS or (split == "train" and not self.dataset.train):
            return []
        if split not in self._items:
            self._items[split] = self._of_split(split)
        return self._items[split]

    def _of_split(self, split: str) -> list[Item]:
        part = self._part(split)
        if self._in_block:
            return [Item(label, f"{split}/{index}") for index, label in enumerate(part.labels)]
        keyed = sorted(
            (label, file.relative_to(self.root).as_posix()) for label, file in _visible(part, self.root)
        )
        if self.dataset.test_share is not None:
            keyed = self._divided(keyed, split)
        return [Item(label, key, self._size(key)) for label, key in keyed]

    def stamp(self, item: Item) -> int | str:
        """When a file was last written, of a picture in a block those that hold it."""
        return self._block_stamp if self._in_block else super().stamp(item)

    @cached_property
    def _block_stamp(self) -> str:
        """Names, sizes and times of everything beside the files that reading cannot start without: not every
        part of a block is one of those."""
        needed = [found for path in self.dataset.needs if (found := place(self.root, path)) is not None]
        beside = sorted(path for folder in {one.parent for one in needed} for path in folder.iterdir())
        files = [(path.name, path.stat()) for path in beside if path.is_file()]
        told = [(name, found.st_size, found.st_mtime_ns) for name, found in files]
        return hashlib.sha256(repr(told).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def picture(self, item: Item, pixels: Pixels) -> Tensor:
        """One image, of a file or out of the block."""
        if not self._in_block:
            return super().picture(item, pixels)
        from PIL import Image

        split, _, index = item.key.partition("/")
        return pixels.fit(Image.fromarray(self._part(split).pictures[int(index)]).convert("RGB"))

    def _divided(self, keyed: list[tuple[int, str]], split: str) -> list[tuple[int, str]]:
        own = self._part(split).classes
        chosen = []
        for label, group in groupby(keyed, key=lambda pair: pair[0]):
            parts = divided([key for _, key in group], own[label], self.dataset.test_share)
            chosen += [(label, key) for key in parts[SPLITS.index(split)]]
        return chosen

    def _size(self, key: str) -> int:
        try:
            return (self.root / key).stat().st_size
        except OSError:
            raise self.dataset.fault(self.root, f"{key} is listed but missing") from None

    def _part(self, split: str) -> Part:
        asked = "all" if self.dataset.test_share is not None else split
        if asked not in self._parts:
            self._parts[asked] = self._checked(self._listed(asked), asked)
        return self._parts[asked]

    def _listed(self, split: str) -> Part:
        try:
            return self.dataset.read(self.root, split)
        except UserError as error:
            raise self.dataset.fault(self.root, error.messages[0]) from None
        except RuntimeError as error:  # torchvision's own words, less the advice that nobody here can follow
            told = " ".join(str(error).split(" You can use")[0].split())
            raise self.dataset.fault(self.root, told.rstrip(".")) from None
        except Exception as error:  # whatever a parser meets in a broken or foreign file
            told = " ".join(f"{type(error).__name__} {error}".split())
            raise self.dataset.fault(
                self.root, f"its list of {split} images cannot be read ({told})"
            ) from None

    def _names(self, part: Part) -> list[str]:
        try:
            return self.dataset.words(part.classes)
        except UserError as error:
            raise self.dataset.fault(self.root, error.messages[0]) from None

    def _checked(self, part: Part, split: str) -> Part:
        """Labels are places in a sorted list: with a class missing, all later ones would carry a wrong
        name."""
        classes = self.dataset.classes
        if part.classes and len(part.classes) != classes:
            raise self.dataset.fault(self.root, f"{len(part.classes)} classes instead of {classes}")
        first = next(iter(self._parts.values()), part)
        if part.classes and part.classes != first.classes:
            raise self.dataset.fault(
                self.root, f"the classes of its {split} images are not those of the others"
            )
        used = set(part.labels)
        if not used <= set(range(classes)):
            raise self.dataset.fault(self.root, f"its {split} labels are not all from 0 to {classes - 1}")
        if len(used) < classes and (used or not self.dataset.train_optional or split != "train"):
            raise self.dataset.fault(
                self.root, f"no {split} images of {classes - len(used)} of {classes} classes"
            )
        return part


def _visible(part: Part, root: Path) -> list[tuple[int, Path]]:
    """Pictures that are not hidden: ``.ipynb_checkpoints`` and macOS's ``._name`` hold copies and rubbish."""
    pairs = zip(part.labels, part.files, strict=True)
    return [
        pair for pair in pairs if not any(step.startswith(".") for step in pair[1].relative_to(root).parts)
    ]
