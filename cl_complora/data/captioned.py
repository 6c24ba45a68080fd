"""Pictures with captions: what retrieval is measured on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..config.sources import CaptionsSource
from ..config.yaml_lines import shown
from ..errors import MOST_FAULTS, UserError, raise_all
from ..files import is_utf8
from .caption_layouts import Entry, read_entries
from .items import Item
from .manifests import Listed, Malformed, inside, roots_of

TEST = "test"


class Captioned(Listed):
    """Files of pictures, each with one text or more; all are test images of no class.

    Args:
        root: folder that the paths start from.
        texts: path below the root → the texts of that picture, in the file's order.
        notes: what a user should know of how the file was read, a line each.
    """

    def __init__(self, root: Path, texts: dict[str, tuple[str, ...]], notes: Sequence[str] = ()) -> None:
        super().__init__(root, [], [(TEST, key, 0) for key in texts], notes)
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
    file = folder / Path(config.file).expanduser()
    entries, notes = _of_split(list(read_entries(file)), file, config.split)
    root = folder / Path(config.root).expanduser() if config.root is not None else _root(file, entries)
    if config.root is None and root != file.parent:
        notes.append(f"{file}: its pictures are taken from {root} (root: in the source for another folder)")
    if not root.is_dir():
        problem = "is a file, and" if root.exists() else "there is no such folder, though"
        raise UserError(f"{root}: {problem} the names of the pictures start from it (root in the source)")
    texts = _texts_by_image(entries, roots_of(root))
    if len(texts) < 2:
        told = "no image" if not texts else "one image, which is always found"
        raise UserError(f"{file}: names {told}; retrieval needs two at least")
    return Captioned(root, texts, [*notes, *(f"{file}: {line}" for line in _repeated(texts))])


def _of_split(entries: list[Entry], file: Path, wanted: str | None) -> tuple[list[Entry], list[str]]:
    """The entries of one split, where the file says which is which; entries with a fault stay."""
    found = Counter(str(one.split) for one in entries if one.split not in (None, ""))
    if not found:
        if wanted is not None:
            raise UserError(f"{file}: split: {wanted} asks for a part, but no row says what split it is of")
        return entries, []
    split = wanted or TEST
    if split not in found:
        asked = f"no row is of the split {split!r}" if wanted else "no row is of the split 'test'"
        raise UserError(f"{file}: {asked}; split: in the source may be {', '.join(map(repr, found))}")
    chosen = [one for one in entries if one.fault or one.split == split]
    return chosen, [
        f"{file}: {found[split]} of {len(entries)} rows are of the split {split!r}, which is read"
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


def _texts_by_image(entries: Iterable[Entry], roots: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Path of every picture → its texts.

    Raises:
        UserError: naming up to twenty faults.
    """
    found: dict[str, list[str]] = {}
    listed: dict[str, str] = {}
    faults = []
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
            faults.append(f"{one.place}: {fault}")
            if len(faults) == MOST_FAULTS:
                break
    raise_all(faults)
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
