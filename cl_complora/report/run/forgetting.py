"""The part of a run's report on forgetting."""

from __future__ import annotations

from ... import metrics
from ...analysis.paired import PairedChanges, task_curve
from ...store.loaded_run import LoadedRun
from ..elements import NOTHING, Cell, Figure, Gallery, Table, percent
from . import figures
from .classes import every_class
from .paired_changes import change_table
from .summary import interval_of


def forgetting(run: LoadedRun, paired: PairedChanges) -> list:
    """What became of every task: the way down, the numbers, and what is more than chance.

    Args:
        run: the run.
        paired: its changes on the same images.
    """
    if not run.measured or not run.trained:
        return []
    if run.independent or run.at_once:
        return [_gains(run), *every_class(run)]
    rows = run.rows[:, : run.trained]
    learned = [float(rows[j + 1, j]) for j in range(run.trained)]
    best = [float(rows[j + 1 :, j].max()) for j in range(run.trained)]
    forgotten, moved = metrics.forgetting(rows), metrics.backward_transfer(rows)
    counted = any(run.images_of(place) for place in range(run.trained))
    lines = []
    for place, name in enumerate(run.tasks[: run.trained]):
        last = float(rows[-1, place])
        measured = run.images_of(place)
        cells = [percent(value) for value in (rows[0, place], learned[place], best[place], last)]
        cells += [Cell(interval_of(last, measured) if measured else NOTHING)] if counted else []
        lines.append([Cell(name), *cells, percent(forgotten[place]), percent(moved[place], signed=True)])
    head = [
        "task",
        "untouched %",
        "just trained %",
        "best since %",
        "now %",
        *(["95 % interval"] if counted else []),
        "forgetting",
        "BWT",
    ]
    note = (
        "Forgetting is the best accuracy since a task was trained minus the one now; BWT (backward transfer)"
        " the one now minus the one right after training, negative where it fell; both"
        " in points."
    )
    fates = [
        figures.Fate(name, float(rows[0, j]), learned[j], best[j], float(rows[-1, j]))
        for j, name in enumerate(run.tasks[: run.trained])
    ]
    drawing = Figure(
        "From the untouched model to now; the thick bar is what was forgotten", figures.fates(fates, "fates")
    )
    blocks: list = [Gallery([drawing], "wide"), Table("Forgetting per task", head, lines, note)]
    blocks += _since_trained(run)
    if paired.tasks:
        blocks.append(change_table("Change since a task was just trained", "task", paired.tasks))
    return [*blocks, *every_class(run)]


def _since_trained(run: LoadedRun) -> list[Gallery]:
    """Curves of the change, where the answers tell it: on an axis of its own a loss of some points is
    seen."""
    curves = {
        name: (place + 1, curve)
        for place, name in enumerate(run.tasks[: run.trained - 1])
        if (curve := task_curve(run.folder, run.config, run.results, place)) is not None
    }
    if not curves:
        return []
    drawn = figures.change_curves(curves, len(run.tasks), "since")
    note = (
        "Change of accuracy since a task was just trained (the dot), in points, after every later task; band:"
        " 95 % interval of the change on the same images. Where it does not reach the dotted line, the change"
        " is more than chance. All tasks share the vertical axis."
    )
    return [Gallery([Figure(name, svg) for name, svg in drawn.items()], "small", note)]


def _gains(run: LoadedRun) -> Table:
    rows = []
    for place, state in enumerate(run.learned_in[: run.learned]):
        name, measured = run.tasks[place], run.images_of(place)
        before, after = run.rows[0, place], float(run.rows[state, place])
        shown = Cell(interval_of(after, measured) if measured else NOTHING)
        rows.append([Cell(name), percent(before), percent(after), shown, percent(after - before, True)])
    head = ["task", "untouched %", "trained %", "95 % interval", "gain"]
    why = "All tasks were trained together, so none came after another"
    if run.independent:
        why = "Every task has a model of its own, so nothing can be forgotten"
    return Table("What was learned", head, rows, f"{why}. Gain in points.")
