"""Pictures that are trained on and tested on: the same content under two names, or in two classes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable

from .items import Item
from .planning import Plan, Plans

_CHUNK = 2**20


def copies(plans: Plans) -> list[str]:
    """A line for every task or measured set that tests on pictures that a task trains on, and
    for training pictures that stand in two classes of a task.

    Files and members of shards are the same where their bytes are; only those of equal size are read. Sources
    that are no files (drawn pictures, arrays) are not looked at, nor are the same pictures saved in another
    format.

    Args:
        plans: of a scenario, for one seed.
    """
    trained = [(task, item) for task in plans.tasks for item in (*task.train, *task.validation)]
    measured = (*plans.tasks, *plans.zero_shot, *plans.beside)
    tested = [(plan, item) for plan in measured for item in plan.test]
    sizes = {item.size for _, item in trained} - {None}
    of_training = _by_content(trained, sizes)
    of_testing = _by_content(tested, sizes)
    lines = []
    for plan in measured:
        found = [
            (item, of_training[content][0])
            for content, held in of_testing.items()
            for other, item in held
            if other is plan and content in of_training
        ]
        if found:
            item, (task, same) = found[0]
            share = "all" if len(found) == len(plan.test) else f"{len(found)} of {len(plan.test)}"
            where = "its own training" if task is plan else f"the training of '{task.name}'"
            lines.append(
                f"'{plan.name}': {share} test pictures are used in {where} too: "
                f"{item.key} is {same.key}; what was trained on is no test"
            )
    lines += [line for task in plans.tasks if (line := _in_two_classes(task, of_training))]
    return lines


def _in_two_classes(task: Plan, of_training: dict[str, list[tuple[Plan, Item]]]) -> str | None:
    for held in of_training.values():
        own = [item for plan, item in held if plan is task]
        other = next((item for item in own if item.label != own[0].label), None)
        if other is not None:
            names = [task.class_names[item.label] for item in (own[0], other)]
            return (
                f"'{task.name}': {own[0].key} and {other.key} are the same picture, "
                f"in the classes {names[0]!r} and {names[1]!r}"
            )
    return None


def _by_content(items: Iterable[tuple[Plan, Item]], sizes: set[int]) -> dict[str, list[tuple[Plan, Item]]]:
    """Digest → the pictures that have it, of those whose size is among ``sizes``."""
    found = defaultdict(list)
    for plan, item in items:
        if item.size in sizes:
            try:
                with plan.source.stored(item) as file:
                    digest = hashlib.sha256()
                    while chunk := file.read(_CHUNK):
                        digest.update(chunk)
            except OSError:  # told where it is loaded
                continue
            found[digest.hexdigest()].append((plan, item))
    return found
