"""A run's accuracies by how many training images a class has."""

from __future__ import annotations

from ...store.forms import BY_SHOTS, SHOT_GROUPS
from ...store.loaded_run import LoadedRun
from ..elements import Cell, Table, number, percent


def by_shots_table(run: LoadedRun) -> list[Table]:
    """Every finished task by shots; nothing where shots are even."""
    shots = run.results.get("by_shots")
    if not shots or not run.trained:
        return []
    rows = []
    for place, name in enumerate(run.tasks[: run.trained]):
        state = place + 1 if run.independent else -1
        classes = shots["classes"].get(name, {})
        cells = [Cell(name), *(number(classes.get(group), 0) for group in SHOT_GROUPS)]
        for figure in BY_SHOTS:
            accuracies = shots["accuracy"].get(figure, [])
            cells.append(percent(accuracies[state][place] if len(accuracies) == len(run.rows) else None))
        rows.append(cells)
    counted = [f"classes with {group} shots" for group in SHOT_GROUPS]
    note = (
        f"Means of the classes' accuracies now, of all classes and by their training images: many are more "
        f"than {shots['many_above']}, few are fewer than {shots['few_below']}."
    )
    return [Table("Accuracy by shots", ["task", *counted, *(f"{name} %" for name in BY_SHOTS)], rows, note)]
