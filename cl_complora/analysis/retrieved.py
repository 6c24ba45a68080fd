"""What the states of a run found of their retrieval sets, query by query, from the ranks that they left."""

from __future__ import annotations

from collections.abc import Sequence
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
    keys = _queries(folder, config, name, direction)
    return keys, _first(folder, config, name, direction, state, len(keys))


def _queries(folder: RunDir, config: dict[str, Any], name: str, direction: str) -> list[str]:
    part = measured_split(config, name)
    rows = [row for row in folder.read_split(name, "texts") if row["split"] == part]
    if direction == "text_to_image":
        return [f"{row['key']}#{place}" for row in rows for place in range(len(row["texts"]))]
    return [row["key"] for row in rows]


def _first(
    folder: RunDir, config: dict[str, Any], name: str, direction: str, state: int, queries: int
) -> np.ndarray:
    placed = ranks_of(folder, config, name, direction, state)
    if len(placed) != queries:
        raise UserError(f"{folder.root}: the ranks on '{name}' are not those of its split manifest")
    return placed == 1


def retrieval_changes(
    folder: RunDir, config: dict[str, Any] | None, results: dict[str, Any]
) -> dict[str, dict[str, PairedChange]]:
    """Retrieval set → direction → change of R@1 since the untouched model, paired by query.

    What has no ranks, or others than its results were counted from, is left out.

    Args:
        folder: the run.
        config: its config.yaml, where there is one.
        results: its results.json, of as many tasks as are done.
    """
    now = len(results["accuracy"]) - 1
    if results.get("independent") or now < 1:
        return {}
    found: dict[str, dict[str, PairedChange]] = {}
    for name, both in results.get("retrieval", {}).items():
        for direction in DIRECTIONS:
            known = _changes(folder, config, name, direction, both[direction]["R@1"], [now])
            if known:
                found.setdefault(name, {})[direction] = known[0]
    return found


def retrieval_curve(
    folder: RunDir, config: dict[str, Any] | None, results: dict[str, Any], name: str, direction: str
) -> list[PairedChange] | None:
    """Changes of R@1 since the untouched model, one after every task; None where any is unknown."""
    values = results["retrieval"][name][direction]["R@1"]
    return _changes(folder, config, name, direction, values, range(1, len(values)))


def _changes(
    folder: RunDir,
    config: dict[str, Any] | None,
    name: str,
    direction: str,
    values: list[float | None],
    states: Sequence[int],
) -> list[PairedChange] | None:
    """The changes from the untouched model to some states; None where any is unknown."""
    if config is None:
        return None
    found: list[PairedChange] = []
    try:
        # Once for all states: a long stream has many of them.
        queries = len(_queries(folder, config, name, direction))
        before = _first(folder, config, name, direction, 0, queries)
        for now in states:
            if values[0] is None or values[now] is None:
                return None
            after = _first(folder, config, name, direction, now, queries)
            lost, won = int((before & ~after).sum()), int((after & ~before).sum())
            change = metrics.paired_change(lost, won, queries)
            if not abs(change.change - (values[now] - values[0])) < 1e-6:
                return None
            found.append(change)
    except UserError:  # a run that kept no answers, or damaged ones
        return None
    return found
