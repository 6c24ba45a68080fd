"""What a scenario's tasks can be without being faults, and what then looks like a result and is none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ...config.loading import Located
from ...config.scenario import Scenario
from ..planning import Plan, Plans
from ..telling import some
from .duplicates import copies

# More pictures than so many are held against each other by whoever has time for it (data check, run).
HELD = 5000

# What stands before the number of a class, and says nothing more than the number.
_NO_WORDS = re.compile(r"class|cls|label|category|categorie|type|group|target|folder", re.IGNORECASE)


def on_paper(located: Located[Scenario], plans: Plans) -> list[str]:
    """What sources passed over or took for something, and what looks like a mistake: all that is known
    without decoding a picture. Of few pictures that includes which are the same, byte by byte.

    Args:
        located: the scenario.
        plans: of it, for one seed.
    """
    held = copies_of_few(plans.opened(located.value.measure))
    return [*plans.notes, *doubts(located, plans), *held]


def copies_of_few(plans: Plans) -> list[str]:
    """As :func:`~cl_complora.data.checks.duplicates.copies`; nothing of more than ``HELD`` pictures.

    For they are read.
    """
    pictures = sum(len(task.train) + len(task.validation) for task in plans.tasks)
    pictures += sum(len(one.test) for one in (*plans, *plans.beside))
    return copies(plans) if pictures <= HELD else []


def doubts(located: Located[Scenario], plans: Plans) -> list[str]:
    """A line for every task or zero-shot set whose accuracy means less than it seems to.

    Args:
        located: the scenario.
        plans: of it.
    """
    lines = []
    together = located.value.protocol == "class-incremental"
    for plan in (*plans.tasks, *plans.zero_shot):
        names = plan.class_names
        if not (together and plan in plans.tasks and len(plans.tasks) > 1):
            lines += one_class(plan.name, names)
        if len(names) > 1 and all(map(is_code, names)):
            kind = "numbers" if all(name.strip().isdecimal() for name in names) else "codes"
            lines.append(
                f"'{plan.name}': its classes are called {some(names)}: {kind} tell a CLIP nothing of "
                "what is in the pictures; call the classes by words"
            )
    lines += _merged(plans.tasks) if together else []
    return [*lines, *untested(plans.tasks), *_shared(plans)]


def _merged(tasks: Sequence[Plan]) -> list[str]:
    """Which classes of several tasks are one in the label space that all tasks share."""
    tasks_of = Counter(name for task in tasks for name in task.class_names)
    merged = [name for name, number in tasks_of.items() if number > 1]
    told = "classes of several tasks count as one, with the prompts of the first"
    return [f"{told}: {some(merged)}"] if merged else []


def one_class(name: str, class_names: Sequence[str]) -> list[str]:
    """What to say of a task or set that has one class alone.

    Args:
        name: of it.
        class_names: of its classes.
    """
    if len(class_names) != 1:
        return []
    return [f"'{name}': has one class, {class_names[0]!r}: every answer is right, and 100 % mean nothing"]


def _shared(plans: Plans) -> list[str]:
    """Sets that are tested on the same pictures, told once a set: what one measures the other does too."""
    lines = []
    tested = [*plans.tasks, *plans.zero_shot]
    held = [
        {(plan.source.origin, item.key) for item in plan.test if item.size is not None} for plan in tested
    ]
    for place, plan in enumerate(tested):
        for other, earlier in zip(tested[:place], held, strict=False):
            common = len(held[place] & earlier)
            # Classes of one data set that tasks share, or styles of the same pictures, are few or meant.
            if common and 2 * common > len(plan.test):
                share = f"{common} of {len(plan.test)} test pictures"
                what = f"'{plan.name}': {share} are those of '{other.name}' too"
                kept = "; what a task learns is no zero-shot knowledge that it might lose"
                lines.append(what + (kept if plan in plans.zero_shot else ""))
                break
    return lines


def is_code(name: str) -> bool:
    """Whether a class name holds no word: ``7``, ``n01440764``, ``class 3``, ``c-12``."""
    words = re.findall(r"[^\W\d_]+", _NO_WORDS.sub(" ", name))
    return any(map(str.isdigit, name)) and all(len(word) < 3 and word.isascii() for word in words)


def untested(tasks: Sequence[Plan]) -> list[str]:
    """What to say of tasks or sets of which a class is not tested."""
    lines = []
    for plan in (plan for plan in tasks if plan.test):
        tested = {item.label for item in plan.test}
        absent = [name for label, name in enumerate(plan.class_names) if label not in tested]
        if absent:
            lines.append(f"'{plan.name}': no test picture is of {some(absent)}")
    return lines
