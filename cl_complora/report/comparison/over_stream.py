"""Accuracy over the stream by method, from the runs that a comparison is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ... import metrics
from ...config.recorded import learned_at_once
from ...errors import UserError
from ...store.folder import RunDir
from ..elements import Figure, Gallery
from .figures import stream_curves
from .members import run_folder
from .tables import Content

# More small drawings than this are a page of their own.
MOST_METHODS = 12


def over_stream(found: Content, folder: Path) -> list[Gallery]:
    """Mean accuracy on the tasks trained so far, a drawing for every method before the others; nothing where
    runs are not there, or trained no task after another.

    Args:
        found: content of comparison.json.
        folder: where it lies, with the runs below it.
    """
    curves = {}
    for m in found["methods"].values():
        places = [run_folder(found, folder, m, seed) for seed in found["request"]["seeds"]]
        seen = [_so_far(place) for place in places if place is not None]
        if seen and len(seen) == len(places) and len(set(map(len, seen))) == 1 and len(seen[0]) > 1:
            curves[m["name"]] = np.array(seen)
    if len({values.shape[1] for values in curves.values()}) != 1 or len(curves) > MOST_METHODS:
        return []
    note = (
        "Accuracy in percent on the tasks trained so far, after 1, 2, … tasks: mean over seeds"
        f"{_band(curves)}; behind it the other methods. All share the vertical axis."
    )
    return [Gallery([Figure(name, svg) for name, svg in stream_curves(curves).items()], "small", note)]


def _band(curves: Mapping[str, np.ndarray]) -> str:
    return ", band: standard deviation" if any(len(values) > 1 for values in curves.values()) else ""


def _so_far(run: Path) -> list[float]:
    """Last of the tasks trained so far, after every task; nothing where a run does not tell it."""
    try:
        results, config = RunDir(run).read_results(), RunDir(run).read_config()
    except UserError:
        return []
    if results is None or config is None or results.get("independent") or learned_at_once(config):
        return []
    rows = np.array(results["accuracy"], dtype=float)
    values = [metrics.so_far(rows[: count + 1])["last"] for count in range(1, len(rows))]
    return values if np.isfinite(values).all() else []
