"""Pictures with captions on the disk, in the layouts that files of captions have."""

from __future__ import annotations

import json
from pathlib import Path

from builders.images import COLOURS, paint

TEXTS = {f"{name}.png": (f"a {name} square", f"something {name} in it") for name in COLOURS}


def painted(root: Path, names=tuple(TEXTS)) -> Path:
    """A noisy picture of one colour by every name."""
    for seed, (name, colour) in enumerate(zip(names, COLOURS.values(), strict=False)):
        paint(root / name, colour, seed)
    return root


def json_lines(file: Path, texts=None) -> Path:
    """``{"image": …, "texts": […]}``, a line an image."""
    rows = [{"image": name, "texts": list(own)} for name, own in (texts or TEXTS).items()]
    return write(file, "".join(json.dumps(row) + "\n" for row in rows))


def coco(file: Path) -> Path:
    """COCO's annotations: captions in another order than the images."""
    images = [{"id": 7 * place, "file_name": name} for place, name in enumerate(TEXTS)]
    notes = [
        {"id": 2 * place + second, "image_id": 7 * place, "caption": texts[second]}
        for second in (0, 1)
        for place, texts in reversed(list(enumerate(TEXTS.values())))
    ]
    return write(file, json.dumps({"info": {}, "licenses": [], "images": images, "annotations": notes}))


def karpathy(file: Path, folder: str | None = None) -> Path:
    """Karpathy's splits; the images of ``TEXTS`` are the test."""
    rows = [
        {
            "filename": name,
            "split": "test",
            "sentids": [0, 1],
            "sentences": [{"raw": text, "tokens": text.split()} for text in texts],
        }
        | ({"filepath": folder} if folder else {})
        for name, texts in TEXTS.items()
    ]
    rows.insert(1, {"filename": "absent.png", "split": "train", "sentences": [{"raw": "not for the test"}]})
    return write(file, json.dumps({"dataset": "flickr30k", "images": rows}))


def token(file: Path) -> Path:
    """Flickr30k's ``results_20130124.token``."""
    rows = [f"{name}#{place}\t{text}\n" for name, own in TEXTS.items() for place, text in enumerate(own)]
    return write(file, "".join(rows))


def bars(file: Path) -> Path:
    """The ``results.csv`` that Flickr30k is often handed on with, whose line of one number lacks a bar."""
    rows = [f"{n}| {i}| {text} .\n" for n, own in TEXTS.items() for i, text in enumerate(own)]
    rows[1] = rows[1].replace("| 1| ", "| 1   ")
    return write(file, "".join(["image_name| comment_number| comment\n", *rows]))


def table(file: Path) -> Path:
    """A row a text, with a header."""
    rows = [f'{name},"{text}"\n' for name, own in TEXTS.items() for text in own]
    return write(file, "".join(["image,caption\n", *rows]))


def write(file: Path, content: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    return file
