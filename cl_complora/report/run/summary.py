"""The beginning of a run's report: what came of it in a few sentences and numbers."""

from __future__ import annotations

from ... import metrics
from ...analysis.paired import PairedChanges
from ...metrics import PairedChange
from ...store.loaded_run import LoadedRun
from ..elements import NOTHING, Card, Cards, Cell, Notice, Text, number, percent
from .paired_changes import told_change
from .precision import cards as precision_cards
from .recall import cards as retrieval_cards
from .tables import MEANING

NAMES = {
    "last": "Last",
    "average": "Average",
    "transfer": "Transfer",
    "forgetting": "Forgetting",
    "bwt": "BWT (backward transfer)",
}
POINTS = ("forgetting", "bwt")


def summary(run: LoadedRun, paired: PairedChanges) -> list:
    blocks = []
    notices = []
    if not run.done:
        told = f"This run is not finished: {run.trained} of {len(run.tasks)} tasks are done"
        failure = run.folder.read_failure()
        notices.append(f"{told}. It failed: {failure}." if failure else f"{told}, and it may be going on.")
    notices += run.missing
    if run.config and run.config["scenario"].get("measure", "test") == "validation":
        notices.append(
            "Accuracies were measured on validation shots, to choose settings by; they are no test results."
        )
    skipped = run.results.get("skipped") or []
    if skipped:
        notices.append(
            f"{len(skipped)} pictures could not be read and were left out, {skipped[0]} among them."
        )
    evaluation = run.results.get("evaluation") or {}
    if (changed := evaluation.get("changed_answers")) is not None:
        notices.append(
            f"Answers were computed in {evaluation['precision']}: {100 * changed['share']:.2f} % of"
            f" {changed['images']:,} answers of the untouched model on '{changed['set']}' are others in fp32."
        )
    if notices:
        blocks.append(Notice(notices))
    if run.measured and run.trained:
        blocks.append(Text([_told(run)]))
    return [*blocks, Cards(_headlines(run, paired))]


def _told(run: LoadedRun) -> str:
    """The result as a few plain sentences."""
    first, last = run.rows[0, : run.learned], run.final
    tasks = "the task" if run.learned == 1 else f"the {run.learned} tasks learned"
    told = (
        f"Accuracy on {tasks} went from {shown(first.mean())} % (untouched model) to {shown(last.mean())} %."
    )
    worst = run.most_forgotten()
    if worst is not None:
        lost = metrics.forgetting(run.rows[:, : run.trained])[worst]
        told += f" The most forgotten task is {run.tasks[worst]}, {shown(lost)} points below its best."
    elif run.trained > 1 and not (run.independent or run.at_once):
        told += " No task is below its best."
    for name, points in run.results["retention"].items():
        if points is not None and not run.independent:
            direction = "lost" if points < 0 else "gained"
            moved = f"{direction} {abs(points):.1f} points" if round(points, 1) else "is what it was"
            told += f" Zero-shot accuracy on {name} {moved}."
    return told


def shown(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _headlines(run: LoadedRun, paired: PairedChanges) -> list[Card]:
    cards = []
    for key, name in NAMES.items():
        cell = percent(run.results.get(key), signed=key == "bwt")
        meaning = MEANING[key]
        if key == "last" and run.independent:
            meaning = "mean accuracy of every task's own model"
        elif key == "last" and not run.done:
            meaning = "mean accuracy now, on the tasks trained so far"
        moved = paired.bwt(run.trained - 1) if key == "bwt" else None
        if moved is not None:
            meaning += f" (95 % interval {range_of(*moved[1:])} points)"
        if cell.value is None:
            meaning += f"; not defined: {_reason(run, key)}"
        cards.append(Card(name, cell, "points" if key in POINTS else "%", meaning))
    for name in run.sets:
        cards.append(_retention_card(run, name, paired.sets.get(name)))
    cards += retrieval_cards(run, paired) + precision_cards(run)
    if not run.sets:
        cards.append(
            Card("Retention", Cell(NOTHING), "points", "not defined: the scenario has no zero-shot set")
        )
    return cards


def _reason(run: LoadedRun, key: str) -> str:
    if not run.trained:
        return "no task is finished yet"
    if not run.measured:
        return "nothing was measured"
    if run.independent:
        return "every task has a model of its own"
    if key == "transfer" and run.at_once:
        return "all tasks are trained at once, so none is unseen"
    return "it needs two tasks" if run.trained == 1 else "it was not recorded"


def _retention_card(run: LoadedRun, name: str, change: PairedChange | None) -> Card:
    values = run.results["zero_shot"][name]
    points = run.results["retention"].get(name)
    cell = number(points, 1, signed=True)
    if cell.value is None or not values or None in (values[0], values[-1]):
        return Card(f"Retention {name}", Cell(NOTHING), "points", f"not defined: {_reason(run, 'retention')}")
    if run.independent:
        meaning = (
            f"zero-shot accuracy {with_interval(run, name, values[0])} before; the mean change after a task"
        )
    elif change is not None:
        when = "after the stream" if run.done else "now"
        meaning = (
            f"zero-shot accuracy {shown(values[0])} % before, {shown(values[-1])} % {when}; image by image"
        )
        meaning += f" {told_change(change)}".replace("-", "−")
    else:
        before, after = (with_interval(run, name, value) for value in (values[0], values[-1]))
        meaning = f"zero-shot accuracy {before} before, {after} {'after the stream' if run.done else 'now'}"
    return Card(f"Retention {name}", cell, "points", meaning)


def with_interval(run: LoadedRun, name: str, value: float) -> str:
    images = (run.results.get("zero_shot_images") or {}).get(name)
    told = f"{shown(value)} %"
    return f"{told} ({interval_of(value, images)} with 95 % confidence)" if images else told


def range_of(low: float, high: float) -> str:
    """Two changes in points."""
    return f"{percent(low, signed=True).text} to {percent(high, signed=True).text}"


def interval_of(value: float, images: int) -> str:
    low, high = metrics.interval(value, images)
    return f"{shown(low)}–{shown(high)}"
