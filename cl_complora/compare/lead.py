"""How well the images of two runs tell their difference of Last, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ..analysis.mistakes import right_answers
from ..errors import UserError
from ..store.folder import RunDir
from .by_image import Kept, differences, digested


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
    first, second = ([_last_answers(folder) for folder in folders] for folders in (ours, others))
    blocks = [differences(name, first, second) for name in first[0]]
    if not blocks or not all(blocks):
        return None
    rows = [row for block in blocks for part in block for row in part]
    return 100 * float(np.sqrt(sum(np.mean(row**2) / row.size for row in rows))) / len(blocks) / len(ours)


def _last_answers(folder: RunDir) -> Kept:
    """What counts for Last, by task; empty where that of one is missing."""
    try:
        results, config = folder.read_results(), folder.read_config()
    except UserError:
        return {}
    if results is None or config is None:
        return {}
    found, tasks = {}, results["tasks"]
    for place, name in enumerate(tasks, 1):
        # Of independent tasks each is answered by its own model.
        state = place if results.get("independent") else len(tasks)
        found[name] = digested(partial(right_answers, folder, config, name, state))
    return {} if None in found.values() else found
