"""The parts of a run's report that audits add: what the model gives away of its training images, how curved
the loss was where training started, and what the model sees where."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from ...store.loaded_run import LoadedRun
from ..elements import NOTHING, Cell, Fold, Notice, Table, number, percent
from ..heat_map import shaded

_FAILURES = (KeyError, TypeError, AttributeError, IndexError, ValueError)


def leaks(run: LoadedRun) -> list:
    """What membership.json found: AUC of every task in every state, and the TPR at a small FPR."""
    return _part_of(run.membership, "membership.json", lambda f: [*made_early(run, f, "audit"), *_leaks(f)])


def curvatures(run: LoadedRun) -> list:
    """What curvature.json found: λ_max jointly and per module."""
    return _part_of(run.curvature, "curvature.json", _curvatures)


def places(run: LoadedRun) -> list:
    """What regions.json found: accuracy of dense features and of crops beside the class token's."""
    return _part_of(run.regions, "regions.json", lambda f: [*made_early(run, f, "regions"), *_places(f)])


def made_early(run: LoadedRun, found: dict[str, Any] | None, command: str) -> list[Notice]:
    """A notice where what is shown was found when the run had other tasks behind it than now.

    Args:
        run: the run.
        found: content of the file; one that does not tell its states says nothing.
        command: that makes it anew.
    """
    states = (found or {}).get("states")
    if not isinstance(states, list) or len(states) == run.trained + 1:
        return []
    again = shlex.join(["cl-complora", command, str(run.folder.root)])
    then = f"This was made after {len(states) - 1} of {len(run.tasks)} tasks"
    return [Notice([f"{then}, and now {run.trained} are done; {again} makes it anew."])]


def _part_of(found: dict[str, Any] | None, name: str, make: Callable[[dict[str, Any]], list]) -> list:
    """Nothing where the file is not there, and a notice where it is of another form."""
    if found is None:
        return []
    try:
        return make(found)
    except _FAILURES as error:
        return [Notice([f"{name} is of another form and left out ({type(error).__name__}: {error})."])]


def _leaks(found: dict[str, Any]) -> list:
    states, tasks, fpr = found["states"], found["tasks"], found["fpr"]
    rows = []
    for task in tasks:
        by_state = {row["state"]: row["auc"]["value"] for row in task["untouched"]["loss-difference"]}
        cells = [Cell(str(task["name"]))]
        for state in range(len(states)):
            own = state == task["trained_in_state"]
            cell = number(by_state.get(state), 2)
            cells.append(
                shaded(cell, cell.value or 0.0, "trained" if own else "", "just trained" if own else "")
            )
        rows.append(cells)
    note = (
        "How well the loss difference to the untouched model tells a task's training images from unused ones"
        " of the same classes, after every task: 0.5 is chance, 1 gives every one of them away. Framed: the"
        " task was just trained. Left of the frame it was not trained yet: what differs from 0.5 there is"
        " chance, or another mix of images."
    )
    matrix = Table("Membership AUC", ["task", *states], rows, note, sortable=False, heat=True)
    details = []
    for task in tasks:
        for base in ("untouched", "before"):
            for score, figures in task[base].items():
                last = figures[-1]
                details.append(
                    [
                        Cell(str(task["name"])),
                        Cell("untouched model" if base == "untouched" else "before the task"),
                        Cell(score.removeprefix("loss-")),
                        *_with_interval(last["auc"]),
                        *_with_interval(last["tpr"]),
                        number(last["members"], 0),
                        number(last["non_members"], 0),
                    ]
                )
        details.append(
            [
                Cell(str(task["name"])),
                Cell("null: none, before the task"),
                Cell("loss alone"),
                *_with_interval(task["null"]["loss"]["auc"]),
                *_with_interval(task["null"]["loss"]["tpr"]),
                number(task["members"], 0),
                number(task["non_members"], 0),
            ]
        )
    head = ["task", "against", "score", "AUC", "95 % interval", f"TPR at {fpr:.0%} FPR", "95 % interval",
            "members", "non-members"]  # fmt: skip
    note = (
        f"In the last state. With fewer than {round(1 / fpr)} non-members, an FPR of {fpr:.0%} allows no"
        " false alarm. Null: the loss in the state before the task, which knows none of its images; what"
        " differs from 0.5 there is a difference between the two groups of images themselves."
    )
    return [matrix, Fold("Every score, with intervals", [Table("Membership now", head, details, note)])]


def _with_interval(estimate: dict[str, Any]) -> list[Cell]:
    if estimate["value"] is None:
        return [Cell(NOTHING), Cell(NOTHING)]
    return [number(estimate["value"], 2), Cell(f"{estimate['low']:.2f}–{estimate['high']:.2f}")]


def _curvatures(found: dict[str, Any]) -> list:
    rows = []
    for task in found["tasks"]:
        most = max(task["modules"].items(), key=lambda item: item[1]["largest"], default=None)
        rows.append(
            [
                Cell(str(task["name"])),
                Cell(_shown(task["joint"]["largest"]), task["joint"]["largest"]),
                Cell(_shown(task["joint"]["smallest"]), task["joint"]["smallest"]),
                Cell(NOTHING) if most is None else Cell(f"{most[0]} {_shown(most[1]['largest'])}"),
                number(task["parameters"], 0),
                number(task["images"], 0),
                Cell("yes" if task["joint"]["converged"] else "no"),
            ]
        )
    rates = {"trained with": found["learning_rate"], "best of a sweep": (found["swept"] or {}).get("lr")}
    told = "; ".join(f"{name} optimiser.lr {rate:g}" for name, rate in rates.items() if rate is not None)
    note = (
        f"Largest and smallest eigenvalue of the Hessian of the task's cross-entropy in"
        f" {found['coordinates']}, before the first step. Plain gradient descent is stable below a rate of"
        " 2/λ_max; AdamW is not governed by it, so this is no rate to choose."
        f" {told[:1].upper()}{told[1:]}."
    )
    head = ["task", "λ_max jointly", "λ_min jointly", "most curved module", "parameters", "images", "settled"]
    blocks: list = [Table("Curvature of the loss", head, rows, note)]
    for task in found["tasks"]:
        if task["modules"]:
            lines = [
                [
                    Cell(name, mark="code"),
                    Cell(_shown(v["largest"]), v["largest"]),
                    Cell(_shown(v["smallest"]), v["smallest"]),
                    number(v["steps"], 0),
                ]
                for name, v in sorted(task["modules"].items(), key=lambda item: -item[1]["largest"])
            ]
            table = Table(f"Curvature of {task['name']}", ["module", "λ_max", "λ_min", "steps"], lines)
            blocks.append(Fold(f"{task['name']}, module by module", [table]))
    return blocks


# In the order of the columns, as regions.json names them.
_FEATURES = {"class_token": "class token %", "dense": "dense %", "box": "box %", "crop": "crop %"}


def _places(found: dict[str, Any]) -> list:
    states, images = found["states"], found["images"]
    untouched, last = states[0], states[-1]
    now, change, every = [], [], []
    for name, shares in last["sets"].items():
        before = untouched["sets"][name]
        head = [Cell(str(name)), number(images[name], 0)]
        now.append([*head, *(percent(shares[key]) for key in _FEATURES)])
        change.append([*head, *(percent(shares[key] - before[key], signed=True) for key in _FEATURES)])
        for place, state in enumerate(states):
            cells = (percent(state["sets"][name][key]) for key in _FEATURES)
            every.append([Cell(str(name)), number(place, 0), Cell(str(state["after"])), *cells])
    note = (
        "By texts alone, on a sample of each set's test images. Class token: what the model is asked for"
        " everywhere else. Dense: the mean of the patches' features over the whole picture. Box: over its"
        " central three quarters. Crop: the class token of that box, enlarged."
    )
    blocks: list = [
        Table(f"Accuracy after '{last['after']}'", ["set", "images", *_FEATURES.values()], now, note)
    ]
    if len(states) > 1:
        heads = [name.replace(" %", "") for name in _FEATURES.values()]
        told = "In points: where the class token keeps its accuracy, dense features and crops may not."
        blocks.append(
            Table(
                "Change of these accuracies since the untouched model",
                ["set", "images", *heads],
                change,
                told,
            )
        )
        table = Table(
            "Places after every task", ["set", "tasks learned", "after", *_FEATURES.values()], every
        )
        blocks.append(Fold("Every state", [table]))
    return blocks


def _shown(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
