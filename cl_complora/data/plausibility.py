"""What a scenario's tasks can be without being faults, and what then looks like a result and is none."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.loading import Located
from ..config.scenario import Scenario
from .planning import Plan, Plans


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
        if len(names) == 1 and not (together and plan in plans.tasks and len(plans.tasks) > 1):
            lines.append(
                f"'{plan.name}': has one class, {names[0]!r}: every answer is right, and 100 % mean nothing"
            )
        if len(names) > 1 and all(name.strip().isdecimal() for name in names):
            lines.append(
                f"'{plan.name}': its classes are called {_some(names)}: numbers tell a CLIP nothing of "
                "what is in the pictures; call the classes by words"
            )
    return [*lines, *_untested(plans.tasks)]


def _untested(tasks: Sequence[Plan]) -> list[str]:
    lines = []
    for plan in (plan for plan in tasks if plan.test):
        tested = {item.label for item in plan.test}
        absent = [name for label, name in enumerate(plan.class_names) if label not in tested]
        if absent:
            lines.append(f"'{plan.name}': no test picture is of {_some(absent)}")
    return lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" … ({len(names)} in all)" if len(names) > 3 else "")
