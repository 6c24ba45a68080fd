"""The parts of a run's report that look for reasons: answers that changed, and what explain.json says."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...analysis.mistakes import Changes, changes, pictures
from ...errors import UserError
from ...store.loaded_run import LoadedRun
from ..elements import Cell, Fold, Notice, Picture, Pictures, Table, Text, number, percent
from .audits import made_early

if TYPE_CHECKING:
    from torch import Tensor

MOST_PICTURES = 12
SIDE = 96
MOST_CONFUSIONS = 12
# Of each kind.
MOST_PARTS = 5
MOST_PAIRS = 20
# Points; less is shown as 0.0.
LEAST_RETURNED = 0.05
# More of them one after the other are folded once more.
MOST_FOLDS = 5


def changed_answers(run: LoadedRun) -> list:
    """Of the most forgotten task that has classes: what its images are taken for now, with the most confident
    mistakes shown."""
    worst = run.most_forgotten(of_classes=True)
    if worst is None or run.config is None:
        return []
    name = run.tasks[worst]
    best = worst + 1 + int(run.rows[worst + 1 :, worst].argmax())
    try:
        found = changes(run.folder, run.config, name, best, run.trained)
    except UserError as error:
        return [Notice([f"Single answers cannot be shown: {error.messages[0]}."])]
    what = "task of classes" if run.results.get("task_measures") else "task"
    blocks: list = [Text([_told(found, what, run.tasks[best - 1], run.tasks[run.trained - 1])])]
    blocks += _pictures(run, found)
    return [*blocks, *_confusions(found)]


def _told(found: Changes, what: str, best: str, last: str) -> str:
    gained = found.right_now - found.right_earlier + len(found.mistakes)
    return (
        f"The most forgotten {what} is {found.name}. Right after {best}, when it was best,"
        f" {found.right_earlier} of its {found.images} images were right; after {last} {found.right_now} are."
        f" {_that(len(found.mistakes), 'right')} wrong now, {_that(gained, 'wrong')} right."
    )


def _that(count: int, earlier: str) -> str:
    """``3 that were right are``, ``1 that was right is``."""
    return f"{count} that was {earlier} is" if count == 1 else f"{count} that were {earlier} are"


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
            (
                m.truth,
                f"now {m.answer}",
                f"{100 * m.share:.0f} % sure; was right with {100 * m.earlier_share:.0f} %",
            ),
        )
        for m, image in zip(shown, pixels, strict=True)
    ]
    note = "Images that were right and are wrong now, the most confident mistakes first."
    return [Pictures(items, note)]


def _address(image: Tensor) -> str:
    """A ``3 × H × W`` picture as a data address."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(
        buffer, "JPEG", quality=82, optimize=True
    )
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
        shown = pairs[:MOST_PAIRS]
        summary = _pairs(shown)
        folds = [Fold(f"{p['old']} after {p['new']}, part by part", [_parts(p)]) for p in shown if p["parts"]]
    except (KeyError, TypeError, AttributeError) as error:
        return [Notice([f"explain.json is of another form and left out ({type(error).__name__}: {error})."])]
    early = made_early(run, run.explained, "explain")
    if not pairs:
        return early
    told = _follows(shown[0])
    if len(pairs) > MOST_PAIRS:
        summary.note += f" The {MOST_PAIRS} pairs that lost most, of {len(pairs)}."
    return [
        *early,
        *([Text([told])] if told else []),
        summary,
        *(folds if len(folds) <= MOST_FOLDS else [Fold("Part by part", folds)]),
    ]


def _follows(pair: dict[str, Any]) -> str:
    """What the parts of the pair that lost most say; nothing where no part brings anything back."""
    lost = 100 * (pair["accuracy_before"] - pair["accuracy_after"])
    part = next(iter(_ranked(pair["parts"])), None)
    if part is None or lost <= 0 or part["returned"] < LEAST_RETURNED:
        return ""
    told = f"{pair['old']} lost {lost:.1f} points to {pair['new']}. Without one part of the update, "
    told += f"{part['kind']} {part['name']}, {part['returned']:.1f} points of them come back"
    return f"{told}, and {pair['new']} loses {part['cost']:.1f}." if "cost" in part else f"{told}."


def _pairs(pairs: Sequence[dict[str, Any]]) -> Table:
    """Every pair with the most responsible part of each kind."""
    kinds = list(dict.fromkeys(part["kind"] for pair in pairs for part in pair["parts"]))
    rows = []
    for pair in pairs:
        before, after = pair["accuracy_before"], pair["accuracy_after"]
        cells = [percent(before), percent(after), percent(after - before, signed=True)]
        for kind in kinds:
            most = next((part for part in _ranked(pair["parts"]) if part["kind"] == kind), None)
            back = None if most is None else number(most["returned"], 1, signed=True)
            cells.append(Cell("–") if back is None else Cell(f"{most['name']} {back.text}", back.value))
        rows.append([Cell(str(pair["new"])), Cell(str(pair["old"])), *cells])
    head = ["new task", "old task", "before %", "after %", "change", *map(str, kinds)]
    note = (
        "Accuracy on an old task before and after a new one was trained; then, for every kind of part of the"
        " new task's update, the one without which most of it comes back, and how many points."
    )
    return Table("Pairs of tasks", head, rows, note)


def _ranked(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(parts, key=lambda part: (-part["returned"], -part.get("probability", 0)))


def _counts(part: dict[str, Any]) -> bool:
    return abs(part["returned"]) >= LEAST_RETURNED


def _parts(pair: dict[str, Any]) -> Table:
    """The most responsible parts of one pair, kind by kind."""
    parts = _ranked(pair["parts"])
    kinds = list(dict.fromkeys(part["kind"] for part in pair["parts"]))
    sets = list(dict.fromkeys(name for part in parts for name in part.get("retention") or {}))
    told = {"probability": "its probability", "cost": f"lost on {pair['new']}"}
    told = {key: name for key, name in told.items() if any(key in part for part in parts)}
    rows = []
    for kind in kinds:
        for part in [part for part in parts if part["kind"] == kind and _counts(part)][:MOST_PARTS]:
            kept = part.get("retention") or {}
            figures = [part["returned"], *(part.get(key) for key in told), *(kept.get(name) for name in sets)]
            rows.append(
                [Cell(str(kind)), Cell(str(part["name"])), *(number(f, 1, signed=True) for f in figures)]
            )
    note = (
        f"What comes back when this part of the update of {pair['new']} is taken out, in points: accuracy on "
        f"{pair['old']} ({pair.get('images', '?')} images)"
    )
    note += ", the mean probability of the right class" if "probability" in told else ""
    note += ", zero-shot accuracy" if sets else ""
    note += f"; and what {pair['new']} loses by it." if "cost" in told else "."
    if idle := sum(not _counts(part) for part in parts):
        note += f" {idle} of {len(parts)} parts bring nothing back and are left out."
    if len(rows) < len(parts) - idle:
        note += f" The first {MOST_PARTS} of each kind."
    head = ["kind", "part", f"{pair['old']} back", *told.values(), *(f"{name} back" for name in sets)]
    return Table(f"{pair['old']} after {pair['new']}", head, rows, note)
