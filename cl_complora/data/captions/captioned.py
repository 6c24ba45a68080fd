"""Pictures with captions: what retrieval is measured on, and what a task of captions trains on."""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...config.sources import CaptionsSource, CaptionsTaskSource
from ...config.yaml_lines import shown
from ...errors import UserError
from ...files import is_utf8
from ..items import Item
from ..tables.manifests import Listed, Malformed, inside, refuse_no_folder, roots_of
from ..telling import Faults, counted
from .caption_layouts import Entry, read_entries

TRAIN, TEST = "train", "test"


class Captioned(Listed):
    """Files of pictures, each with one text or more, of no class.

    Args:
        root: folder that the paths start from.
        texts: path below the root → the texts of that picture, in the file's order.
        notes: what a user should know of how the file was read, a line each.
        trained: paths of the training images; all others are for testing.
    """

    def __init__(
        self,
        root: Path,
        texts: Mapping[str, tuple[str, ...]],
        notes: Sequence[str] = (),
        trained: Iterable[str] = (),
    ) -> None:
        parts = dict.fromkeys(texts, TEST) | dict.fromkeys(trained, TRAIN)
        super().__init__(root, [], [(split, key, 0) for key, split in parts.items()], notes)
        self._texts = texts

    def texts(self, item: Item) -> tuple[str, ...]:
        """What is written under a picture."""
        return self._texts[item.key]


def open_captions(config: CaptionsSource, folder: Path) -> Captioned:
    """Pictures and texts of a file in any of the layouts of :mod:`.caption_layouts`.

    Raises:
        UserError: naming file and line of every fault, up to twenty: no text, an empty one, a picture that
            stands there twice, a path that leaves the root…
    """
    if isinstance(config, CaptionsTaskSource):
        return _open_both(config, folder)
    file = folder / Path(config.file).expanduser()
    rows = list(read_entries(file))
    return Captioned(*_read_part(rows, file, _named(config.root, folder), config.split, TEST))


def _named(root: str | None, folder: Path) -> Path | None:
    return None if root is None else folder / Path(root).expanduser()


def _open_both(config: CaptionsTaskSource, folder: Path) -> Captioned:
    """The pictures to train on and those to test on: two parts of a file, or two files."""
    file, root = folder / Path(config.file).expanduser(), _named(config.root, folder)
    rows = list(read_entries(file))
    if config.test_file is None and all(one.split is None for one in rows):
        for key in ("split", "test_split"):
            if (wanted := getattr(config, key)) is not None:
                raise UserError(_no_splits(file, key, wanted))
        root, texts, notes = _read_part(rows, file, root, None, TRAIN)
        # One fixed division for every run and seed, so that no test image is ever trained on.
        keys = random.Random(f"division/{len(texts)}").sample(sorted(texts), len(texts))
        tested = set(keys[: round(len(keys) * config.test_fraction)])
        return Captioned(root, texts, notes, [key for key in texts if key not in tested])
    tested = (rows, file, root)
    if config.test_file is not None:
        other = folder / Path(config.test_file).expanduser()
        tested = (list(read_entries(other)), other, _named(config.test_root, folder))
    parts = [
        _read_part(rows, file, root, config.split, TRAIN),
        _read_part(*tested, config.test_split, TEST, "test_split"),
    ]
    # Keys of both start from one folder, so that each means one file.
    root = Path(os.path.commonpath([part[0].absolute() for part in parts]))
    train, test = (
        {(own.absolute() / key).relative_to(root).as_posix(): text for key, text in texts.items()}
        for own, texts, _ in parts
    )
    both = next((key for key in test if key in train), None)
    if both is not None:
        raise UserError(f"{tested[1]}: image {both!r} is one of the training pictures, too ({file})")
    notes = list(dict.fromkeys(line for part in parts for line in part[2]))
    return Captioned(root, {**train, **test}, notes, train)


def _read_part(
    rows: list[Entry],
    file: Path,
    named_root: Path | None,
    wanted: str | None,
    default: str,
    key: str = "split",
) -> tuple[Path, dict[str, tuple[str, ...]], list[str]]:
    """Root, texts by path and notes of one part of a file: ``wanted``, or ``default`` where the file parts
    its rows."""
    entries, notes = _of_split(rows, file, wanted, default, key)
    root = named_root if named_root is not None else _root(file, entries)
    if named_root is None and root != file.parent:
        notes.append(f"{file}: its pictures are taken from {root} (root: in the source for another folder)")
    refuse_no_folder(root, "names")
    texts = _texts_by_image(file, entries, roots_of(root))
    if len(texts) < 2:
        told = "no image" if not texts else "one image, which is always found"
        raise UserError(f"{file}: names {told}; retrieval needs two at least")
    return root, texts, [*notes, *(f"{file}: {line}" for line in _repeated(texts))]


def _no_splits(file: Path, key: str, wanted: str) -> str:
    return f"{file}: {key}: {wanted} asks for a part, but no row says what split it is of"


def _of_split(
    entries: list[Entry], file: Path, wanted: str | None, default: str, key: str
) -> tuple[list[Entry], list[str]]:
    """The entries of one split, where the file says which is which; entries with a fault stay."""
    found = Counter(one.split for one in entries if one.split is not None)
    if not found:
        if wanted is not None:
            raise UserError(_no_splits(file, key, wanted))
        return entries, []
    split = wanted or default
    if split not in found:
        known = ", ".join(map(repr, found))
        raise UserError(f"{file}: no row is of the split {split!r}; {key}: in the source may be {known}")
    chosen = [one for one in entries if one.fault or one.split == split]
    return chosen, [
        f"{file}: {found[split]} of {counted(len(entries), 'row')} are of the split {split!r}, which is read"
    ]


def _root(file: Path, entries: Iterable[Entry]) -> Path:
    """The folder that holds the first picture: the file's own, or one that COCO and Flickr30k are kept in."""
    first = next((one.image for one in entries if not one.fault and isinstance(one.image, str)), "")
    here, above = file.parent, file.parent.parent
    part = re.search(r"(?:train|val|test)\d{4}", file.stem)
    ends = [part[0], f"images/{part[0]}"] if part else []
    ends += ["images", "Images", "flickr30k-images", "flickr30k_images", "flickr30k_images/flickr30k_images"]
    places = [here, *(here / end for end in ends), above, *(above / end for end in ends)]
    usable = bool(first) and "\0" not in first and len(first) < 4096 and is_utf8(first)
    try:
        return next((place for place in places if usable and (place / first).is_file()), here)
    except OSError:  # a name that no file can have is told of where the row is read
        return here


def _texts_by_image(file: Path, entries: Iterable[Entry], roots: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Path of every picture → its texts.

    Raises:
        UserError: naming up to twenty faults.
    """
    found: dict[str, list[str]] = {}
    listed: dict[str, str] = {}
    faults = Faults(file)
    for one in entries:
        try:
            if one.fault:
                raise Malformed(one.fault)
            key = _key(one, roots)
            texts = _checked(one)
            if key in found and (isinstance(one.texts, list) or key in listed):
                first = listed.get(key, "a row before")
                raise Malformed(f"image {shown(one.image)} is named a second time, after {first}")
            if isinstance(one.texts, list):
                listed[key] = one.place
            found.setdefault(key, []).extend(texts)
        except Malformed as fault:
            faults.add(f"{one.place}: {fault}")
    faults.refuse()
    return {key: tuple(texts) for key, texts in found.items()}


def _key(one: Entry, roots: Sequence[str]) -> str:
    if not isinstance(one.image, str) or not one.image.strip():
        raise Malformed(f"image must be the name of a picture, got {shown(one.image)}")
    return inside(one.image, roots)


def _checked(one: Entry) -> list[str]:
    texts = one.texts if isinstance(one.texts, list) else [one.texts]
    if not texts:
        raise Malformed(f"image {shown(one.image)} has no text")
    checked = []
    for text in texts:
        if not isinstance(text, str):
            raise Malformed(f"a text of image {shown(one.image)} must be text, got {shown(text)}")
        if not is_utf8(text):
            raise Malformed(f"a text of image {shown(one.image)} holds bytes that are not UTF-8")
        if not text.strip():
            raise Malformed(f"a text of image {shown(one.image)} is empty")
        # As every tokeniser reads it.
        checked.append(" ".join(text.split()))
    return checked


def _repeated(texts: dict[str, tuple[str, ...]]) -> list[str]:
    """What to say of texts that stand in the file more than once."""
    twice = [text for own in texts.values() for text, count in Counter(own).items() if count > 1]
    images = Counter(text for own in texts.values() for text in set(own))
    shared = [text for own in texts.values() for text in own if images[text] > 1]
    lines = []
    if twice:
        lines.append(
            f"texts that stand twice under one image: {len(twice)} (such as {shown(twice[0])}); each is asked"
        )
    if shared:
        lines.append(
            f"texts that stand under several images: {len(set(shared))} (such as {shown(shared[0])}); nothing"
            " tells them apart, and those of the other images count as wrong"
        )
    return lines
