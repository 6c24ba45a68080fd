"""Accuracy on every class of every task before the stream, right after its training, and now."""

from __future__ import annotations

from ...analysis.mistakes import ClassAnswers, answers_by_class
from ...errors import UserError
from ...store.loaded_run import LoadedRun
from ..elements import Cell, Fold, Table, number, percent

# Of a task; more would make a page of a stream like MTIL too long to open.
MOST_CLASSES = 40


def every_class(run: LoadedRun) -> list[Fold]:
    """A folded table of the classes, those of a task that lost most first (of tasks that were trained
    together: that gained least); nothing where the answers are not recorded."""
    if run.config is None or run.independent:
        return []
    rows, more = [], False
    for place, task in enumerate(run.tasks[: run.learned]):
        states = (0, 1) if run.at_once else (0, place + 1, run.trained)
        try:
            found = answers_by_class(run.folder, run.config, task, states)
        except UserError:  # a run that kept no answers, or damaged ones: told where single answers are shown
            continue
        found.sort(key=_change)
        more |= len(found) > MOST_CLASSES
        for one in found[:MOST_CLASSES]:
            shares = [percent(count / one.images) for count in one.right]
            change = percent(_change(one), signed=True)
            rows.append([Cell(one.name), Cell(task), number(one.images, 0), *shares, change])
    if not rows:
        return []
    figures = ["untouched %", "trained %", "gain"]
    told, shown = "gain in points", "gained least"
    if not run.at_once:
        figures = ["untouched %", "just trained %", "now %", "change"]
        told, shown = "change since its task was just trained in points", "lost most"
    note = f"Accuracy in percent of the class's images, {told}."
    note += f" The {MOST_CLASSES} classes of a task that {shown}." if more else ""
    head = ["class", "task", "images", *figures]
    return [Fold("Accuracy by class", [Table("Every class", head, rows, note, filtered=1)])]


def _change(one: ClassAnswers) -> float:
    return (one.right[-1] - one.right[-2]) / one.images
