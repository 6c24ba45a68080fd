"""Which protocol suits tasks, by the classes that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..telling import some


@dataclass(frozen=True)
class StreamKind:
    """How a scenario that is written for somebody tells classes apart.

    Attributes:
        protocol: as a scenario has it.
        comments: lines that say why.
        note: what to say about it; empty where it is the usual one.
    """

    protocol: str
    comments: tuple[str, ...]
    note: str = ""


def stream_kind(classes: Mapping[str, Sequence[str]]) -> StreamKind:
    """Domain-incremental where all of several tasks have the same classes, task-incremental otherwise.

    Args:
        classes: task → its classes, in order.
    """
    tasks, lists = list(classes), [tuple(names) for names in classes.values()]
    if len(tasks) > 1 and len(set(lists)) == 1:
        return StreamKind(
            "domain-incremental",
            (
                "# All tasks have the same classes (domain-incremental): nothing tells which task a",
                "# picture is of. task-incremental tells it, and each task may be answered in another way.",
            ),
            "all tasks have the same classes, so the protocol is domain-incremental",
        )
    held: dict[str, list[str]] = {}
    for task, names in classes.items():
        for name in names:
            if task not in held.setdefault(name, []):
                held[name].append(task)
    shared = [name for name, where in held.items() if len(where) > 1]
    if not shared:
        return StreamKind(
            "task-incremental",
            (
                "# Every task has its own classes (task-incremental). class-incremental tells the classes of",
                "# all tasks apart; domain-incremental is for the same classes in every task.",
            ),
        )
    if len(set(map(frozenset, lists))) == 1:
        told = "all tasks have the same classes, in different orders"
        way = "# domain-incremental wants them in one order, which classes: [...] of a task sets."
    else:
        where = held[shared[0]]
        told = f"some classes are in more than one task: {some(shared)}"
        told += f" ({', '.join(where[:3])}{' …' if len(where) > 3 else ''})" if len(shared) == 1 else ""
        way = "# class-incremental takes equal names for one class, and tells the classes of all tasks apart."
    return StreamKind(
        "task-incremental",
        (
            f"# {told[0].upper()}{told[1:]}.",
            "# task-incremental: a picture is told apart from the classes of its own task, which is known.",
            way,
        ),
        f"{told}; the protocol is task-incremental",
    )
