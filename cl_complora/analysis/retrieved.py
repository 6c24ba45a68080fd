"""What the states of a run found of their retrieval sets, query by query, from the ranks that they left."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import metrics
from ..errors import UserError
from ..metrics import PairedChange
from ..store.answers import ranks_of
from ..store.folder import RunDir
from ..store.forms import DIRECTIONS
from .mistakes import measured_split


def found_first(
    folder: RunDir, config: dict[str, Any], name: str, direction: str, state: int
) -> tuple[list[str], np.ndarray]:
    """The queries of a retrieval set, and which of them a state found the right answer to in the first place.

    Args:
        folder: the run.
        config: its config.yaml.
        name: a retrieval set, or a task of captions.
        direction: ``image_to_text`` (queries are images) or ``text_to_image`` (queries are texts).
        state: counted by the tasks that it has learned (0: the untouched model).

    Raises:
        UserError: where ranks or manifest are missing, or do not fit together.
    """
    part = measured_split(config, name)
    rows = [row for row in folder.read_split(name, "texts") if row["split"] == part]
    keys = [row["key"] for row in rows]
    if direction == "text_to_image":
        keys = [f"{row['key']}#{place}" for row in rows for place in range(len(row["texts"]))]
    placed = ranks_of(folder, config, name, direction, state)
    if len(placed) != len(keys):
        raise UserError(f"{folder.root}: the ranks on '{name}' are not those of its split manifest")
    return keys, placed == 1


def retrieval_changes(folder: RunDir, results: dict[str, Any]) -> dict[str, dict[str, PairedChange]]:
    """Retrieval set → direction → change of R@1 since the untouched model, paired by query.

    What has no ranks, or others than its results were counted from, is left out.

    Args:
        folder: the run.
        results: its results.json, of as many tasks as are done.
    """
    now = len(results["accuracy"]) - 1
    if results.get("independent") or now < 1:
        return {}
    found: dict[str, dict[str, PairedChange]] = {}
    for name, both in results.get("retrieval", {}).items():
        for direction in DIRECTIONS:
            change = _change(folder, name, direction, both[direction]["R@1"], now)
            if change is not None:
                found.setdefault(name, {})[direction] = change
    return found


def retrieval_curve(
    folder: RunDir, results: dict[str, Any], name: str, direction: str
) -> list[PairedChange] | None:
    """Changes of R@1 since the untouched model, one after every task; None where any is unknown."""
    values = results["retrieval"][name][direction]["R@1"]
    found = [_change(folder, name, direction, values, state) for state in range(1, len(values))]
    known = [change for change in found if change is not None]
    return known if len(known) == len(found) else None


def _change(
    folder: RunDir, name: str, direction: str, values: list[float | None], now: int
) -> PairedChange | None:
    try:
        config = folder.read_config()
        if config is None or values[0] is None or values[now] is None:
            return None
        (_, before), (_, after) = (found_first(folder, config, name, direction, s) for s in (0, now))
    except UserError:  # a run that kept no answers, or damaged ones
        return None
    if len(before) != len(after):
        return None
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    change = metrics.paired_change(lost, won, len(after))
    return change if abs(change.change - (values[now] - values[0])) < 1e-6 else None
