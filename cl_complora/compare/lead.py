"""How well the images of two runs tell their difference of Last, image by image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..analysis.mistakes import right_answers
from ..errors import UserError
from ..store.folder import RunDir


def lead_error(ours: Sequence[RunDir], others: Sequence[RunDir]) -> float | None:
    """Standard error of a difference of Last if neither run were better, in points.

    Two runs of one seed answer the same images. With d = 1 for one that ours alone gets right, −1 for one
    that the other alone does and 0 else, Last differs by the mean over T tasks of mean d, so that

        error = 100 / S · √(Σ over S seeds of Σ over tasks of mean(d²) / n / T²)

    A lead over its error is McNemar's z of one task and seed.

    Args:
        ours, others: folders of finished runs, by seed, in the same order.

    Returns:
        None where the answers to a task are missing or are to other images.
    """
    squares = []
    for one, other in zip(ours, others, strict=True):
        parts = _by_task(one, other)
        if not parts:
            return None
        squares.append(sum(np.mean(d**2) / d.size for d in parts) / len(parts) ** 2)
    return 100 * float(np.sqrt(sum(squares))) / len(squares)


def _by_task(one: RunDir, other: RunDir) -> list[np.ndarray]:
    """d of every task; empty where anything is missing or does not fit."""
    try:
        results, configs = one.read_results(), [folder.read_config() for folder in (one, other)]
        if results is None or None in configs:
            return []
        found, tasks = [], results["tasks"]
        for place, name in enumerate(tasks, 1):
            # Of independent tasks each is answered by its own model.
            state = place if results.get("independent") else len(tasks)
            (keys, mine), (others, theirs) = (
                right_answers(folder, config, name, state)
                for folder, config in zip((one, other), configs, strict=True)
            )
            if keys != others or not keys:
                return []
            found.append(np.asarray(mine, dtype=int) - np.asarray(theirs, dtype=int))
    except UserError:  # none are kept, or they are damaged
        return []
    return found
