"""The parts of a run's report that look for reasons: answers that changed, and what explain.json says."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..analysis.mistakes import Changes, changes, pictures
from ..errors import UserError
from .loaded import LoadedRun
from .page import Cell, Fold, Notice, Picture, Pictures, Table, Text, number, percent

if TYPE_CHECKING:
    from torch import Tensor

MOST_PICTURES = 12
SIDE = 96
MOST_CONFUSIONS = 12
MOST_PARTS = 12
MOST_PAIRS = 20
# More of them one after the other are folded once more.
MOST_FOLDS = 5


def changed_answers(run: LoadedRun) -> list:
    """Of the most forgotten task: what its images are taken for now, with the most confident mistakes shown."""
    worst = run.most_forgotten()
    if worst is None or run.config is None:
        return []
    name = run.tasks[worst]
    best = worst + 1 + int(run.rows[worst + 1 :, worst].argmax())
    try:
        found = changes(run.folder, run.config, name, best, run.trained)
    except UserError as error:
        return [Notice([f"Single answers cannot be shown: {error.messages[0]}."])]
    blocks: list = [Text([_told(found, run.tasks[best - 1], run.tasks[run.trained - 1])])]
    blocks += _pictures(run, found)
    return [*blocks, *_confusions(found)]


def _told(found: Changes, best: str, last: str) -> str:
    gained = found.right_now - found.right_earlier + len(found.mistakes)
    return (
        f"The most forgotten task is {found.name}. Right after {best}, when it was best, {found.right_earlier} of its "
        f"{found.images} images were right; after {last} {found.right_now} are. {len(found.mistakes)} that were right "
        f"are wrong now, {gained} that were wrong are right."
    )


def _pictures(run: LoadedRun, found: Changes) -> list:
    shown = found.mistakes[:MOST_PICTURES]
    if not shown:
        return []
    try:
        pixels = pictures(run.folder, run.config or {}, found.name, [m.position for m in shown], SIDE)
    except UserError as error:
        return [Notice([f"The pictures themselves cannot be shown: {error.messages[0]}."])]
    items = [
        Picture(
            _address(image),
            f"An image of {m.truth} that is now taken for {m.answer}",
            (m.truth, f"now {m.answer}", f"{100 * m.share:.0f} % sure; was right with {100 * m.earlier_share:.0f} %"),
        )
        for m, image in zip(shown, pixels, strict=True)
    ]
    note = "Images that were right and are wrong now, the most confident mistakes first."
    return [Pictures(items, note)]


def _address(image: Tensor) -> str:
    """A ``3 × H × W`` picture as a data address."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "JPEG", quality=82, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _confusions(found: Changes) -> list[Table]:
    changed = [c for c in found.confusions if c.now != c.earlier]
    if not changed:
        return []
    rows = [
        [
            Cell(c.truth),
            Cell(c.answer),
            number(c.earlier, 0),
            number(c.now, 0),
            number(c.now - c.earlier, 0, signed=True),
        ]
        for c in changed[:MOST_CONFUSIONS]
    ]
    note = f"Images of {found.name} by true class and answer, where it is wrong and the number changed."
    if len(changed) > MOST_CONFUSIONS:
        note += f" The {MOST_CONFUSIONS} pairs that grew most, of {len(changed)}."
    return [Table("Confusions", ["is", "taken for", "at its best", "now", "change"], rows, note)]


def explanation(run: LoadedRun) -> list:
    """What explain.json found: parts of a new update that an old task's accuracy comes back without."""
    pairs = (run.explained or {}).get("pairs") or []
    try:
        pairs = sorted(pairs, key=lambda pair: pair["accuracy_after"] - pair["accuracy_before"])
        shown, every = pairs[:MOST_PAIRS], len(pairs)
        summary = [_pair_row(pair) for pair in shown]
        folds = [
            Fold(f"{p['old']} after {p['new']}: {len(p['parts'])} parts", [_parts(p)]) for p in pairs if p["parts"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        return [Notice([f"explain.json is of another form and left out ({type(error).__name__}: {error})."])]
    if not pairs:
        return []
    head = ["new task", "old task", "before %", "after %", "change", "what gives most back", "points back"]
    note = (
        "Accuracy on an old task before and after a new one was trained, and the part of the new task's update without "
        "which most of it comes back."
    )
    if every > MOST_PAIRS:
        note += f" The {MOST_PAIRS} pairs that lost most, of {every}."
    folds = folds if len(folds) <= MOST_FOLDS else [Fold("Part by part", folds)]
    return [Table("Pairs of tasks", head, summary, note), *folds]


def _pair_row(pair: dict[str, Any]) -> list[Cell]:
    before, after = pair["accuracy_before"], pair["accuracy_after"]
    parts = _ranked(pair["parts"])
    most = parts[0] if parts else None
    told = Cell("–") if most is None else Cell(_part_name(most))
    back = Cell("–") if most is None else number(most["returned"], 1, signed=True)
    return [Cell(str(pair["new"])), Cell(str(pair["old"])), percent(before), percent(after),
            percent(after - before, signed=True), told, back]  # fmt: skip


def _ranked(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(parts, key=lambda part: -part["returned"])


def _part_name(part: dict[str, Any]) -> str:
    return str(part["name"]) if part["kind"] == "matrix" else f"{part['kind']} {part['name']}"


def _parts(pair: dict[str, Any]) -> Table:
    sets = list(dict.fromkeys(name for part in pair["parts"] for name in part.get("retention") or {}))
    rows = []
    for part in _ranked(pair["parts"])[:MOST_PARTS]:
        kept = part.get("retention") or {}
        cells = [Cell(str(part["name"])), Cell(str(part["kind"])), number(part["returned"], 1, signed=True)]
        rows.append([*cells, *(number(kept.get(name), 1, signed=True) for name in sets)])
    note = (
        f"Points of accuracy on {pair['old']} that come back when this part of the update of {pair['new']} is taken "
        f"out, measured on {pair.get('images', '?')} images, and what happens to the zero-shot sets."
    )
    if len(pair["parts"]) > MOST_PARTS:
        note += f" The first {MOST_PARTS} of {len(pair['parts'])} parts."
    head = ["part", "of kind", f"{pair['old']}, points back", *(f"{name}, points" for name in sets)]
    return Table(f"{pair['old']} after {pair['new']}", head, rows, note)
