"""Parts of a strategy that beside others would do nothing, or something else than they say."""

from __future__ import annotations

from collections.abc import Sequence

from .adaptation import Adapter
from .base import refused
from .penalties import Regulariser
from .training import Training


def of_a_alone(part: Regulariser) -> bool:
    """Whether a regulariser is the products of A with those of earlier tasks, and nothing else."""
    return part.kind == "orthogonal" and part.norm == 0


def looks_back(part: Regulariser) -> bool:
    """Whether a regulariser is about earlier tasks and nothing else."""
    return part.kind in ("ewc", "lwf", "apart") or of_a_alone(part)


def of_earlier_tasks(adapter: Adapter, regularisers: Sequence[Regulariser]) -> list[str]:
    """What adapter and regularisers say of earlier tasks alone, and does nothing where there are none."""
    found = [part.kind for part in regularisers if looks_back(part)]
    if adapter.kind == "lowrank" and "updates" in adapter.subspace.protect:
        found.append("updates in adapter.subspace.protect")
    return found


def refuse_directions_counted_twice(adapter: Adapter, regularisers: Sequence[Regulariser]) -> None:
    """Factors of directions hold those of all earlier tasks again; products with each task's would count
    them several times."""
    if adapter.between_kind != "directions":
        return
    for place, part in enumerate(regularisers):
        if part.kind == "orthogonal":
            why = "whose factors hold those of earlier tasks again"
            message = f"orthogonal does not go with adapter.between.kind: directions, {why}"
            because = [("adapter", "between", "kind")]
            raise refused(message, "regularisers", place, "kind", because=because)


def refuse_long_intervals(adapter: Adapter, training: Training) -> None:
    """What happens every so many steps has to happen within a task."""
    auto = training.steps == "auto"
    key, fewest = ("bounds", training.bounds[0]) if auto else ("steps", training.steps)
    often: list[tuple[str, str, int, str]] = []
    if adapter.kind == "lowrank" and adapter.pruning is not None:
        often.append(("pruning", "every", adapter.pruning.every, "nothing is set to zero"))
    if adapter.between_kind == "budget" and adapter.between.final == 0:
        often.append(("between", "every", adapter.between.every, "nothing is set to zero"))
    if adapter.between_kind == "boosters":
        often.append(("between", "steps", adapter.between.steps, "the first booster is not finished"))
    for part, name, steps, otherwise in often:
        if steps > fewest:
            message = f"must be at most training.{key} ({fewest}), or {otherwise}"
            raise refused(message, "adapter", part, name, because=[("training", key)])
