"""Parts of a strategy that beside others would do nothing, or something else than they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import refused

if TYPE_CHECKING:
    from .penalties import Regulariser
    from .strategy import Strategy


def of_a_alone(part: Regulariser) -> bool:
    """Whether a regulariser is the products of A with those of earlier tasks, and nothing else."""
    return part.kind == "orthogonal" and part.norm == 0


def looks_back(part: Regulariser) -> bool:
    """Whether a regulariser is about earlier tasks and nothing else."""
    return part.kind in ("ewc", "lwf", "apart") or of_a_alone(part)


def of_earlier_tasks(strategy: Strategy) -> list[str]:
    """What a strategy says of earlier tasks alone, and does nothing where there are none."""
    found = ["memory"] if strategy.memory is not None else []
    found += [part.kind for part in strategy.regularisers if looks_back(part)]
    if strategy.adapter.kind == "lowrank" and "updates" in strategy.adapter.subspace.protect:
        found.append("updates in adapter.subspace.protect")
    return found


def refuse_directions_counted_twice(strategy: Strategy) -> None:
    """Factors of directions hold those of all earlier tasks again; products with each task's would count
    them several times."""
    if strategy.adapter.between_kind != "directions":
        return
    for place, part in enumerate(strategy.regularisers):
        if part.kind == "orthogonal":
            why = "whose factors hold those of earlier tasks again"
            message = f"orthogonal does not go with adapter.between.kind: directions, {why}"
            because = [("adapter", "between", "kind")]
            raise refused(message, "regularisers", place, "kind", because=because)


def refuse_long_intervals(strategy: Strategy) -> None:
    """What happens every so many steps has to happen within a task."""
    auto = strategy.training.steps == "auto"
    key, fewest = ("bounds", strategy.training.bounds[0]) if auto else ("steps", strategy.training.steps)
    parts = {"pruning": strategy.adapter.pruning} if strategy.adapter.kind == "lowrank" else {}
    if strategy.adapter.between_kind == "budget" and strategy.adapter.between.final == 0:
        parts["between"] = strategy.adapter.between
    for name, part in parts.items():
        if part is not None and part.every > fewest:
            message = f"must be at most training.{key} ({fewest}), or nothing is set to zero"
            raise refused(message, "adapter", name, "every", because=[("training", key)])
