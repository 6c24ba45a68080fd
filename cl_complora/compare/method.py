"""What a comparison finds about one method, and a method against another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..report.comparison.tables import LOWER_IS_BETTER
from ..store.forms import BY_SHOTS, DIRECTIONS
from .by_image import difference_by_image
from .outcomes import Outcome
from .statistics import Difference, difference, per_unit
from .trials import Settings
from .update_rows import FIGURES

# Of scenarios with captions, or with images of several labels.
BESIDE = (*DIRECTIONS, "multi_label")
METRICS = ("transfer", "average", "last", "forgetting", "learned", "retention")


@dataclass
class Method:
    """Everything found about one method.

    Attributes:
        name: of the strategy.
        chosen: swept settings that were tested.
        curve: every combination tried, with its figures on validation shots.
        figures: metric → one value per tested seed (percent or points).
        differences: metric → against the reference; empty for the reference itself.
        budget: what a run costs.
        updates: means over tasks and seeds of what the updates did.
        per_task: the same for every seed and task, with the accuracy right after its training and after the
            stream (percent).
        failed: tests that did not finish, with the reason.
    """

    name: str
    chosen: Settings = ()
    curve: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)
    budget: dict[str, float] = field(default_factory=dict)
    updates: dict[str, float | None] = field(default_factory=dict)
    per_task: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def describe(self, outcomes: Sequence[Outcome]) -> None:
        """Take over the figures, costs and updates of finished tests.

        Args:
            outcomes: one for every tested seed.
        """
        results = [o.results for o in outcomes]
        for metric in METRICS:
            values = per_unit(results, metric)
            self.figures[metric] = values.mean(1).tolist() if values.size else [float("nan")] * len(results)
        for metric in BESIDE:
            values = per_unit(results, metric)
            if values.size:  # a scenario with captions, or with several labels
                self.figures[metric] = values.mean(1).tolist()
        told = [r["by_shots"]["last"] for r in results if r.get("by_shots")]
        if len(told) == len(results):
            for figure in BY_SHOTS:
                values = [last.get(figure) for last in told]
                self.figures[figure] = [float("nan") if v is None else 100.0 * v for v in values]
        details = [d for r in results for d in r["tasks_detail"]]
        self.budget = {
            "steps": float(np.mean([sum(d["steps"] for d in r["tasks_detail"]) for r in results])),
            "trainable_parameters": float(max(d["trainable_parameters"] for d in details)),
            "stored_bytes": float(
                np.mean([sum(d["stored_bytes"] for d in r["tasks_detail"]) for r in results])
            ),
            "carried_bytes": float(np.mean([r["tasks_detail"][-1]["carried_bytes"] for r in results])),
            "train_seconds": float(
                np.mean([sum(d["train_seconds"] for d in r["tasks_detail"]) for r in results])
            ),
            "peak_memory_bytes": float(max(d["peak_memory_bytes"] for d in details)),
        }
        self.per_task = [
            {"seed": o.results["seed"], "task": task, "learned": learned, "last": last, **row}
            for o in outcomes
            for task, learned, last, row in zip(
                o.results["tasks"],
                per_unit([o.results], "learned")[0].tolist(),
                per_unit([o.results], "last")[0].tolist(),
                o.updates,
                strict=True,
            )
        ]
        for key in FIGURES:
            # Joint training has no update after its first: nothing to average.
            known = [row[key] for row in self.per_task if row[key] is not None and row["norm"] > 0]
            nothing = 0.0 if key.endswith("norm") else None
            self.updates[key] = float(np.mean(known)) if known else nothing


def against(
    ours: Sequence[Outcome], reference: Sequence[Outcome], metrics: Sequence[str] = (*METRICS, *BESIDE)
) -> dict[str, Difference]:
    """Metric → a method minus the reference.

    Args:
        ours, reference: outcomes by seed, in the same order.
        metrics: those that are compared.
    """
    found = {}
    for metric in metrics:
        one, other = (per_unit([o.results for o in part], metric) for part in (ours, reference))
        # Rows that a hand made may be of other tasks than they say.
        if one.size and one.shape == other.shape and np.isfinite(one).all() and np.isfinite(other).all():
            found[metric] = difference(one, other, metric not in LOWER_IS_BETTER)
    for metric in ("retention", *DIRECTIONS):
        if metric not in found:
            continue
        kept = ([o.kept.get(metric, {}) for o in part] for part in (ours, reference))
        pairs = difference_by_image(*kept)
        # Answers that do not tell what the results tell are of other runs, or damaged.
        if pairs is not None and abs(pairs.mean - found[metric].mean) < 1e-4:
            found[metric] = pairs
    return found
