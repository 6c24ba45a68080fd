"""A stream of a task of classes, a task of captions and a task of classes, all tiny."""

from __future__ import annotations

import json
from pathlib import Path

from builders.images import COLOURS, paint

NAMES = tuple(COLOURS)


def pairs(folder: Path, each: int = 4) -> Path:
    """A file of pictures with two texts each, some of them under several pictures."""
    rows = []
    for label, (name, colour) in enumerate(COLOURS.items()):
        for number in range(each):
            paint(folder / f"{name}{number}.png", colour, 100 * label + number)
            texts = [f"a {name} square", f"number {number} in {name}"]
            rows.append({"image": f"{name}{number}.png", "texts": texts})
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def with_captions(folder: Path, plain: str, more: str = "") -> Path:
    """A scenario file whose second task has captions.

    Args:
        folder: where it is written, with the pictures.
        plain: a scenario of two tasks, the last keys of which stand behind them.
        more: keys of the task of captions, a line each.
    """
    pairs(folder)
    task = f"  - name: told\n    source: {{kind: captions, file: {folder / 'pairs.jsonl'}}}\n{more}"
    before, second, after = plain.partition("  - name: cold\n")
    assert second
    file = folder / "scenario.yaml"
    file.write_text(before + task + second + after, encoding="utf-8")
    return file
