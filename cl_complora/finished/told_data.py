"""What ``cl-complora eval --data`` measures, told: classes, what answers, and what was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

from ..data.checks.duplicates import trained_on
from ..data.checks.plausibility import one_class, untested
from ..data.folders import Folder
from ..data.planning import Plan, plan
from ..data.telling import counted, worded
from ..errors import UserError
from .asked_sets import Asked, ClassSet
from .evaluation import Data
from .states import State

# Names of classes in a line.
NAMED = 8


def refuse_empty(named: str, data: Data) -> None:
    """Refuse class folders without pictures, as a task with them is refused: each would be a class that
    answers may be, and none is right.

    Args:
        named: the data, as they were given.
        data: what they are.

    Raises:
        UserError: naming the classes.
    """
    for one in data.plans.zero_shot:
        # Those of a scenario are for the scenario to say, and are checked with it.
        if data.prefix or not isinstance(one.source, Folder) or not untested((one,)):
            continue
        if empty := one.source.empty():
            has, folder = worded(len(empty), "has", "have"), worded(len(empty), "its folder", "their folders")
            kind = worded(len(empty), "class", "classes")
            raise UserError(
                f"--data {named}: {kind} {_named(empty)} {has} no pictures; delete {folder}, or leave"
                f" {worded(len(empty), 'it', 'them')} out with exclude: in a scenario, and name that"
            )


def describe(data: Sequence[Data], asked: Sequence[Asked], state: State | None) -> list[str]:
    """A line for every set of classes, and what else there is to say of it.

    Args:
        data: what was named, on paper.
        asked: all of it, as it is asked.
        state: of the run that answers; None of a model.
    """
    # In the order in which they are asked; names need not differ.
    plans = [
        (each, not one.prefix)
        for one in data
        for each in (*one.plans.tasks, *one.plans.zero_shot)
        if not each.captioned
    ]
    learned = None if state is None else _learned(state)
    lines = []
    sets = [one for one in asked if isinstance(one, ClassSet)] if plans else []
    for one, (chosen, whole) in zip(sets, plans, strict=True):
        names = one.space.class_names
        classes = f"{counted(len(names), 'class', 'classes')} ({_named(names)})"
        head = ", not by the run's head" if state is not None and state.has_head else ""
        told = f"{one.name}: {classes}, answered by texts with {_prompted(chosen.prompts)}{head}"
        if state is not None:
            told += _trained(replace(chosen, test=one.items), learned)
        lines.append(told)
        lines += [f"note: {line}" for line in one_class(one.name, names)]
        if whole:
            lines += [f"note: {line}" for line in (*untested((chosen,)), *_deeper(chosen))]
        if head and learned:
            lines += [f"note: {one.name}: {line}" for line in _as_a_task(state, names, learned)]
    return lines + [
        f"note: {line}" for line in dict.fromkeys(note for one in data for note in one.plans.notes)
    ]


def _trained(chosen: Plan, learned: Sequence[Plan] | None) -> str:
    if learned is None:
        return "; which of the pictures were trained on is not known: the run's own are not where they were"
    found, pictures = trained_on(chosen, learned), len(chosen.test)
    if found is None:
        return ""
    number = "none" if found == 0 else "all" if found == pictures > 1 else str(found)
    are = worded(max(found, 1), "is", "are")
    return f"; {number} of {counted(pictures, 'picture')} {are} among those trained on"


def _learned(state: State) -> list[Plan] | None:
    """What was drawn for the tasks that are in the weights; None where it is not there as it was."""
    located = state.scenario
    held = state.trained_on
    nothing = {"zero_shot": [], "retrieval": [], "multi_label": [], "reference": None}
    tasks = [task for task in located.value.tasks if task.name in held]
    if not tasks:
        return []
    try:
        alone = replace(located, value=located.value.model_copy(update={"tasks": tasks, **nothing}))
        plans = plan(alone, state.results["seed"]).tasks
    except UserError:
        return None
    splits = state.config["splits"]
    return list(plans) if all(one.sha256() == splits.get(one.name) for one in plans) else None


def _as_a_task(state: State, names: Sequence[str], learned: Sequence[Plan]) -> list[str]:
    """How a task's head is asked, where the classes are those of a task."""
    task = next((one.name for one in learned if set(one.class_names) == set(names)), None)
    if task is None:
        return []
    run = quote(str(state.folder.root))
    return [
        f"these are the classes of task '{task}', whose head answers in cl-complora eval"
        f" {run} without --data, and in cl-complora predict {run} … --task {quote(task)}"
    ]


def _deeper(chosen: Plan) -> list[str]:
    """What to say of folders whose pictures all lie in folders of these, as of a folder of tasks."""
    source = chosen.source
    if not isinstance(source, Folder):
        return []
    depth = source.depth("test")
    parts = [Path(item.key).parts for item in chosen.test]
    if not parts or min(map(len, parts)) <= depth:
        return []
    inside = list(dict.fromkeys(part[depth - 1] for part in parts))
    first = Path(*parts[0][: depth - 1])
    return [
        f"{chosen.name}: its pictures lie in folders of these ({_named(inside)}); if those are the"
        f" classes, give {source.root / first}"
    ]


def _prompted(prompts: Sequence[str]) -> str:
    more = f" and {counted(len(prompts) - 1, 'more prompt')}" if len(prompts) > 1 else ""
    return f"{prompts[0]!r}{more}"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
