"""Which strategies can learn a stream that has tasks of captions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..config import Scenario, Strategy
from ..data.planning import Plans
from ..errors import UserError


def check_captions(
    scenario: Scenario, strategy: Strategy, plans: Plans, head: Any, plugins: Sequence[Any]
) -> None:
    """Refuse what asks for classes where a task has captions.

    Every part says so itself: ``needs_classes`` is what it does with them, None where it does without. A head
    that stands beside an adapter has its tasks of classes; those of captions have none.

    Args:
        scenario, strategy: that are to be run together.
        plans: of the stream.
        head, plugins: of the strategy, as they were built.

    Raises:
        UserError: naming the part, what it does, and the first task that has no classes.
    """
    captioned = [plan.name for plan in plans.tasks if plan.captioned]
    if not captioned:
        return
    told = f"task '{captioned[0]}' of scenario '{scenario.name}' has pictures with captions"
    for where, why in _asking(strategy, head, plugins):
        raise UserError(f"strategy '{strategy.name}': {where} {why}, and {told}, which have no classes")
    if strategy.training.batch_size < 2:
        raise UserError(
            f"strategy '{strategy.name}': training.batch_size: 1 leaves nothing to tell a pair from; {told},"
            " whose loss compares the pairs of a batch; set 2 at least"
        )


def _asking(strategy: Strategy, head: Any, plugins: Iterable[Any]) -> Iterator[tuple[str, str]]:
    loss = strategy.training.loss
    if loss.needs_classes is not None:
        yield f"training.loss: {loss.kind}", loss.needs_classes
    # Beside an adapter a head answers for the tasks that have classes, and the towers learn the captions.
    alone = [head] if strategy.adapter.kind == "none" else []
    for part in (*alone, *(one for one in plugins if one is not head)):
        why = getattr(part, "needs_classes", None)
        if why is None:
            continue
        settings = getattr(part, "settings", None)
        kind = getattr(settings, "kind", None)
        place = "head" if part is head else "memory" if settings is strategy.memory else "regularisers"
        yield f"{place}: {kind}" if kind else place, why
