"""Pictures that are used twice: trained on and tested on, in two classes, or in two tasks."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ..captions.multi_label_sets import MultiLabelPlan
from ..captions.retrieval_sets import CaptionPlan
from ..items import Item, files
from ..planning import Plan, Plans

_CHUNK = 2**20
# Pictures of a task that are looked for among those of every other: copies of a whole folder are found by
# these, and of large folders not every file is read.
LOOKED = 200

# Of the file with a key in a source: no file is read twice.
Digests = dict[tuple[int, str], str | None]


def copies(plans: Plans, named: int = 1) -> list[str]:
    """A line for every task or measured set that tests on pictures that a task or the reference set trains
    on, for tasks whose validation pictures are such, for training pictures that stand in two classes of a
    task, and for tasks whose pictures are copies of another's.

    Files and members of shards are the same where their bytes are; only those of equal size are read. Sources
    that are no files (drawn pictures, arrays) are not looked at, nor are the same pictures saved in another
    format.

    Args:
        plans: of a scenario, for one seed.
        named: how many copies a line names at most; the others are counted.
    """
    trained = [(task, item) for task in plans.tasks for item in task.train]
    trained += [(plans.reference, item) for item in plans.reference.test] if plans.reference else []
    chosen_by = [(task, item) for task in plans.tasks for item in task.validation]
    known: Digests = {}
    measured = (*plans.tasks, *plans.zero_shot, *plans.beside)
    lines = _also_trained_on(plans.tasks, "validation", trained, plans.reference, known, named)
    lines += _also_trained_on(measured, "test", [*trained, *chosen_by], plans.reference, known, named)
    for task in plans.tasks:
        own = [(task, item) for item in files([*task.train, *task.validation])]
        alike = {size for size, number in Counter(item.size for _, item in own).items() if number > 1}
        line = _in_two_classes(task, _by_content(own, alike, known), named)
        lines += [line] if line else []
    for part, used in (("training", "train"), ("test", "test")):
        lines += _in_two_tasks([(task, getattr(task, used)) for task in plans.tasks], part, known, named)
    return lines


def _also_trained_on(
    measured: Sequence[Plan | CaptionPlan | MultiLabelPlan],
    part: str,
    trained: Sequence[tuple[Plan, Item]],
    reference: Plan | None,
    known: Digests,
    named: int,
) -> list[str]:
    """A line for every task or set with pictures in a part that are trained on.

    Args:
        measured: the tasks and sets.
        part: ``test`` or ``validation``.
        trained: pictures that are trained on, each with whose it is.
        reference: the reference set, if any.
        known: as of :func:`_by_content`.
        named: as of :func:`copies`.
    """
    held = [(plan, item) for plan in measured for item in getattr(plan, part)]
    sizes = {item.size for _, item in held} & {item.size for _, item in trained} - {None}
    of_training, of_part = _by_content(trained, sizes, known), _by_content(held, sizes, known)
    lines = []
    for plan in measured:
        found = [
            (item, of_training[content][0])
            for content, those in of_part.items()
            for other, item in those
            if other is plan and content in of_training
        ]
        if found:
            task = found[0][1][0]
            pairs = _pairs([(item.key, same.key) for item, (_, same) in found], named)
            number = len(getattr(plan, part))
            verb = "is" if len(found) == 1 < number else "are"
            share = "all" if len(found) == number else f"{len(found)} of {number}"
            where = f"the training of '{task.name}'"
            if task is plan:
                where = "its own training"
            elif task is reference:
                where = "the reference set"
            lines.append(
                f"'{plan.name}': {share} {part} pictures {verb} used in {where} too: {pairs}; what was"
                " trained on is no test"
            )
    return lines


def trained_on(measured: Plan, tasks: Sequence[Plan]) -> int | None:
    """How many test pictures of a set some tasks were trained on, by content; None where none is a file.

    Args:
        measured: the set.
        tasks: that were learned.
    """
    if not files(measured.test):
        return None
    sizes = {item.size for item in measured.test} - {None}
    known: Digests = {}
    trained = _by_content([(task, item) for task in tasks for item in task.train], sizes, known)
    same = {item.size for held in trained.values() for _, item in held}
    tested = _by_content([(measured, item) for item in measured.test], same, known)
    return sum(len(held) for content, held in tested.items() if content in trained)


def _in_two_tasks(
    used: Sequence[tuple[Plan, Sequence[Item]]], part: str, known: Digests, named: int
) -> list[str]:
    """A line for every task with copies of an earlier one's pictures in the same part.

    One picture that two tasks of a data set use under one name is meant (classes that tasks share), and told
    elsewhere where it is most of them.

    Args:
        used: tasks, and what they use of their pictures.
        part: what that is called.
        known: as of :func:`_by_content`.
        named: as of :func:`copies`.
    """
    lines = []
    for place, (task, items) in enumerate(used):
        present = files(items)
        looked = present[:: max(1, len(present) // LOOKED)]
        sizes = {item.size for item in looked}
        earlier = [(one, item) for one, theirs in used[:place] for item in theirs]
        others = _by_content(earlier, sizes, known)
        same = {item.size for held in others.values() for _, item in held}
        own = _by_content([(task, item) for item in looked], same, known)
        found = [
            (item, twin)
            for content, held in own.items()
            for _, item in held
            if (twin := _twin(task, item, others.get(content, ()))) is not None
        ]
        if found:
            other = found[0][1][0]
            pairs = _pairs([(item.key, copy.key) for item, (_, copy) in found], named)
            share = "all" if len(found) == len(looked) else f"{len(found)} of {len(looked)}"
            of = f"{share} {part} pictures" + (" looked at" if len(looked) < len(present) else "")
            lines.append(
                f"'{task.name}': {of} are copies of {part} pictures of '{other.name}': {pairs} there"
            )
    return lines


def _twin(task: Plan, item: Item, held: Sequence[tuple[Plan, Item]]) -> tuple[Plan, Item] | None:
    """A copy in another task, of those with the same content; none that is the same file."""
    own = (task.source.origin, item.key)
    return next(((other, one) for other, one in held if (other.source.origin, one.key) != own), None)


def _in_two_classes(task: Plan, of_training: dict[str, list[tuple[Plan, Item]]], named: int) -> str | None:
    """A line for a task that has one picture in two classes."""
    found = []
    for held in of_training.values():
        own = [item for _, item in held]
        other = next((item for item in own if item.label != own[0].label), None)
        if other is not None:
            names = [task.class_names[item.label] for item in (own[0], other)]
            found.append(
                f"{own[0].key} and {other.key} are the same picture, in the classes {names[0]!r} and"
                f" {names[1]!r}"
            )
    return f"'{task.name}': {_some(found, named)}" if found else None


def _pairs(found: Sequence[tuple[str, str]], named: int) -> str:
    return _some([f"{one} is {other}" for one, other in found], named)


def _some(told: Sequence[str], named: int) -> str:
    """The first of them; one alone is an example, of several the others are counted."""
    more = f", and {len(told) - named} more" if 1 < named < len(told) else ""
    return ", ".join(told[:named]) + more


def _by_content(
    items: Iterable[tuple[Plan, Item]], sizes: set[int], known: Digests
) -> dict[str, list[tuple[Plan, Item]]]:
    """Digest → the pictures that have it, of those whose size is among ``sizes``.

    Args:
        items: pictures, each with whose it is.
        sizes: of files that are read.
        known: digests of files that were read already; gets those that are read now.
    """
    wanted = [(plan, item) for plan, item in items if item.size in sizes]
    # In the order in which they are stored, so that no part of a table is read twice.
    for plan, item in sorted(wanted, key=lambda one: (id(one[0].source), one[1].order)):
        place = (id(plan.source), item.key)
        if place not in known:
            known[place] = _digest(plan, item)
    found = defaultdict(list)
    for plan, item in wanted:
        content = known[id(plan.source), item.key]
        if content is not None:
            found[content].append((plan, item))
    return found


def _digest(plan: Plan, item: Item) -> str | None:
    """Of a picture's bytes; None of one that cannot be read, which whoever loads it tells."""
    digest = hashlib.sha256()
    try:
        with plan.source.stored(item) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return None
    return digest.hexdigest()
