"""Files of captions in the layouts that they come in, read into one form: an image, its texts, its split."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config.yaml_lines import shown
from ...errors import UserError
from ...files import json_lines, parse_json, read_lines
from ..tables.json_files import LINES, json_or_lines
from ..telling import counted

# Karpathy's file of COCO has 144 MB; one JSON value takes several times its size in memory.
MAX_JSON = 2**28
MAX_LINES = 2**30
_SEPARATORS = ("\t", ",", "|", ";")
# What the two columns or keys are called, the likeliest first.
IMAGE = "image file_name filename image_name image_path filepath path file img".split()
TEXT = "texts captions sentences caption text title comment raw sentence description".split()
_TOKEN = re.compile(r"(?P<image>[^\t]+)#\d+\t(?P<text>.*)")
# A line of the well-known results.csv of Flickr30k lacks the separator behind the number.
_UNPARTED = re.compile(r"\s*\d+\s+(\D.*)")


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a file of captions, as it stands there.

    Attributes:
        place: where, for messages.
        image: name of the picture.
        texts: a list of texts, or one text of an image that may have more in other rows.
        split: what the file says that the image belongs to, numbers as text; None where it says nothing.
        fault: what is wrong with the row; the others mean nothing then.
    """

    place: str
    image: Any = None
    texts: Any = None
    split: str | None = None
    fault: str = ""


def read_entries(file: Path) -> Iterable[Entry]:
    """Rows of a file of captions, whatever its layout.

    JSON lines and JSON lists of objects with an image and its texts (``{"image": …, "texts": […]}``), a JSON
    object of image → texts, COCO's annotations, Karpathy's ``dataset_*.json``, Flickr30k's
    ``results_*.token``, and tables with a header.

    Raises:
        UserError: for a file that cannot be read, or is none of these.
    """
    suffix = file.suffix.lower()
    if suffix in LINES:
        return _rows(file, _placed(file, json_lines(file, MAX_LINES)))
    if suffix == ".json":
        return _json(file)
    lines = read_lines(file, MAX_LINES)
    first = next(lines, "")
    lines = itertools.chain([first], lines)
    if _TOKEN.match(first):
        return _tokens(file, lines)
    return _table(file, first, lines)


def _json(file: Path) -> Iterable[Entry]:
    content, lines = json_or_lines(file, MAX_JSON, MAX_LINES)
    if lines is not None:
        return _rows(file, _placed(file, lines))
    if isinstance(content, list):
        return _rows(file, ((f"{file}[{place}]", row) for place, row in enumerate(content)))
    images = content.get("images") if isinstance(content, dict) else None
    if isinstance(images, list) and isinstance(content.get("annotations"), list):
        return _coco(file, images, content["annotations"])
    if isinstance(images, list):
        return _rows(file, ((f"{file}: images[{place}]", row) for place, row in enumerate(images)))
    if isinstance(content, dict) and _key(content, IMAGE) and _key(content, TEXT):
        return _rows(file, [(str(file), content)])
    if isinstance(content, dict) and content and all(map(_are_texts, content.values())):
        rows = ({"image": name, "texts": texts} for name, texts in content.items())
        return _rows(file, ((f"{file}: {shown(row['image'])}", row) for row in rows))
    raise UserError(
        f'{file}: must be a list of {{"image": …, "texts": […]}}, COCO\'s annotations (images and '
        f"annotations) or Karpathy's splits (images with sentences), got {shown(content)}"
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))


def _placed(file: Path, lines: Iterable[tuple[int, Any]]) -> Iterator[tuple[str, Any]]:
    return ((f"{file}:{number}", row) for number, row in lines)


def _rows(file: Path, rows: Iterable[tuple[str, Any]]) -> Iterator[Entry]:
    """Entries of JSON objects."""
    for place, row in rows:
        if not isinstance(row, dict):
            yield Entry(place, fault='must be a JSON object such as {"image": "a.jpg", "texts": ["a cat"]}')
            continue
        image, text = _key(row, IMAGE), _key(row, TEXT)
        if image is None or text is None:
            names = ", ".join(map(shown, list(row)[:8])) or "nothing"
            wanted = "image" if image is None else "texts"
            yield Entry(place, fault=f"the key {wanted} is missing; found {names}")
            continue
        name, texts = row[image], row[text]
        if "filepath" in row and "filename" in row:  # Karpathy's name of the folder, and that in it
            name = f"{row['filepath']}/{row['filename']}"
        if isinstance(texts, list):
            texts = [_sentence(one) for one in texts]
        split = row.get("split")
        yield Entry(place, name, texts, None if split in (None, "") else str(split))


def _sentence(one: Any) -> Any:
    return one.get("raw", one.get("caption")) if isinstance(one, dict) else one


def _key(row: Mapping[str, Any] | list[str], names: Iterable[str]) -> str | None:
    """The row's key for what goes by these names; case does not count."""
    known = {str(key).strip().casefold(): key for key in reversed(list(row))}
    return next((known[name] for name in names if name in known), None)


def _coco(file: Path, images: list, annotations: list) -> Iterator[Entry]:
    """``images`` with their ``file_name``, ``annotations`` with ``image_id`` and ``caption``."""
    if annotations and not any(isinstance(one, dict) and "caption" in one for one in annotations):
        raise UserError(
            f"{file}: its annotations have no caption; those of objects are in instances_….json, the texts in"
            " captions_….json"
        )
    texts: dict[Any, list] = {}
    for place, one in enumerate(images):
        number = one.get("id") if isinstance(one, dict) else None
        if not isinstance(number, int | str) or "file_name" not in one:
            yield Entry(f"{file}: images[{place}]", fault="must have id and file_name")
        elif number in texts:
            fault = f"the id {shown(number)} is that of an image before"
            yield Entry(f"{file}: images[{place}]", fault=fault)
        else:
            texts[number] = []
    for place, one in enumerate(annotations):
        whole = isinstance(one, dict) and "caption" in one and isinstance(one.get("image_id"), int | str)
        if not whole:
            yield Entry(f"{file}: annotations[{place}]", fault="must have image_id and caption")
        elif one["image_id"] not in texts:
            fault = f"no image has the id {shown(one['image_id'])}"
            yield Entry(f"{file}: annotations[{place}]", fault=fault)
        else:
            texts[one["image_id"]].append(one["caption"])
    for place, one in enumerate(images):
        number = one.get("id") if isinstance(one, dict) else None
        if isinstance(number, int | str) and number in texts:
            yield Entry(f"{file}: images[{place}]", one.get("file_name"), texts.pop(number))


def _tokens(file: Path, lines: Iterable[str]) -> Iterator[Entry]:
    """Lines such as ``1000092795.jpg#0`` tab ``Two young guys …``."""
    for number, line in enumerate(lines, start=1):
        found = _TOKEN.match(line.rstrip("\r\n"))
        if found:
            yield Entry(f"{file}:{number}", found["image"], found["text"])
        elif line.strip():
            yield Entry(f"{file}:{number}", fault="must be name#number, a tab, and the text")


def _table(file: Path, head: str, lines: Iterable[str]) -> Iterator[Entry]:
    """A header with a column of images and one of texts, then a row for every text (or a JSON list of
    them)."""
    for separator in _SEPARATORS:
        names = [name.strip() for name in next(csv.reader([head], delimiter=separator), [])]
        image, text, split = _key(names, IMAGE), _key(names, TEXT), _key(names, ("split",))
        if image is not None and text is not None:
            break
    else:
        raise UserError(
            f"{file}:1: the first line must name a column of images ({', '.join(IMAGE[:4])} …) and one of "
            f"texts ({', '.join(TEXT[:5])} …), got {shown(head.strip())}; or use JSON lines "
            '{"image": …, "texts": […]} in a .jsonl file'
        )
    # What lies between bars is written as it is, quotes and all.
    quoting = csv.QUOTE_NONE if separator == "|" else csv.QUOTE_MINIMAL
    reader = csv.reader(lines, delimiter=separator, quoting=quoting)
    places = [None if one is None else names.index(one) for one in (image, text, split)]
    try:
        next(reader)
        for cells in reader:
            if any(cells):
                yield _cells(f"{file}:{reader.line_num}", cells, len(names), *places)
    except csv.Error as error:
        raise UserError(
            f"{file}:{reader.line_num}: cannot be read as a table: {error}; is a quote never closed?"
        ) from None


def _cells(place: str, cells: list[str], width: int, image: int, text: int, split: int | None) -> Entry:
    if len(cells) == width - 1 and text == width - 1 and (found := _UNPARTED.fullmatch(cells[-1])):
        cells = [*cells[:-1], "", found[1]]
    if len(cells) != width:
        told = f"has {counted(len(cells), 'cell')} for {counted(width, 'column')}"
        return Entry(place, fault=f"{told}; a text with the separator in it needs quotes")
    texts: Any = cells[text].strip()
    if texts.startswith("["):
        try:
            texts = parse_json(texts)
        except ValueError:
            pass  # a text that begins so
    return Entry(place, cells[image].strip(), texts, None if split is None else cells[split].strip() or None)
