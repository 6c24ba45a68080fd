"""How every task was learned, step by step: loss and accuracy of the training batches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ...store.loaded_run import LoadedRun
from ..elements import Figure, Gallery
from . import figures

# Place of a task in the stream, its name, one value a step.
Curve = tuple[int, str, list[float]]


def step_curves(run: LoadedRun) -> list:
    """Galleries of loss and accuracy by step, each where it was recorded."""
    losses, shares = (_curves(run, key) for key in ("curve", "training_accuracy"))
    return [*_losses(losses), *_accuracies(shares)]


def _curves(run: LoadedRun, key: str) -> list[Curve]:
    """Curves that have a number at all."""
    records: Iterable[tuple[str, dict[str, Any] | None]] = zip(run.tasks, run.records[1:], strict=False)
    found = [
        (place, name, [math.nan if v is None else v for v in (record or {}).get(key, [])])
        for place, (name, record) in enumerate(records)
    ]
    return [one for one in found if any(map(math.isfinite, one[2]))]


def _losses(curves: list[Curve]) -> list[Gallery]:
    if not curves:
        return []
    highest = max(value for _, _, curve in curves for value in curve if math.isfinite(value))
    drawn = [
        Figure(name, figures.loss_curve(curve, highest, name, f"loss-{place}"))
        for place, name, curve in curves
    ]
    note = "Training loss by step; all tasks share the vertical axis."
    return [Gallery(drawn, "small", note + _thinned(curves))]


def _accuracies(curves: list[Curve]) -> list[Gallery]:
    if not curves:
        return []
    drawn = [
        Figure(name, figures.accuracy_curve(curve, name, f"answered-{place}"))
        for place, name, curve in curves
    ]
    note = (
        "Accuracy on the training batches by step, %: the share of a batch's images, as they were augmented,"
        " that the model answered rightly before it learned from them. Grey: every batch, noisy since batches"
        " are small; blue: running mean over a tenth of the steps."
    )
    return [Gallery(drawn, "small", note + _thinned(curves))]


def _thinned(curves: list[Curve]) -> str:
    if max(len(curve) for _, _, curve in curves) <= figures.MOST_POINTS:
        return ""
    return f" Where there are more than {figures.MOST_POINTS} steps, means of neighbouring steps are drawn."
