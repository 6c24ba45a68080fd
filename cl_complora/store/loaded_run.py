"""A run's folder as its report reads it: what is missing or damaged is told, and the rest is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from .. import metrics
from ..config.recorded import learned_at_once, learning_states
from ..errors import UserError
from . import forms
from .folder import RunDir


@dataclass
class LoadedRun:
    """A finished run, or one that still goes on.

    Attributes:
        folder: where it is.
        results: its results.json; made from the configuration where there is none yet.
        config: its config.yaml, where there is one.
        records: what every finished task measured, the untouched model first; None where a record is missing.
        analyses: what analysis/ says after each finished task; empty where it says nothing.
        explained, membership, curvature, regions: explain.json, membership.json, curvature.json and
            regions.json, where they are there.
        missing: sentences about what the report cannot show.
    """

    folder: RunDir
    results: dict[str, Any]
    config: dict[str, Any] | None
    records: list[dict[str, Any] | None] = field(default_factory=list)
    analyses: list[dict[str, Any]] = field(default_factory=list)
    explained: dict[str, Any] | None = None
    membership: dict[str, Any] | None = None
    curvature: dict[str, Any] | None = None
    regions: dict[str, Any] | None = None
    missing: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> list[str]:
        """All tasks of the stream."""
        return self.results["tasks"]

    @property
    def sets(self) -> list[str]:
        """All zero-shot sets."""
        return self.results["zero_shot_sets"]

    @property
    def rows(self) -> np.ndarray:
        """``(t+1, T)`` accuracies so far, the untouched model first; NaN where nothing was measured."""
        return np.array(self.results["accuracy"], dtype=float).reshape(-1, len(self.tasks))

    @property
    def trained(self) -> int:
        """Number of finished tasks."""
        return max(0, len(self.results["accuracy"]) - 1)

    @property
    def learned(self) -> int:
        """Number of tasks that are learned; those that are trained together all at once."""
        return len(self.tasks) if self.at_once and self.trained else self.trained

    @property
    def done(self) -> bool:
        """Whether the stream is finished."""
        return self.results["status"] == "done"

    @property
    def independent(self) -> bool:
        """Whether every task started from the pretrained weights, so that there is no stream to forget in."""
        return bool(self.results.get("independent"))

    @property
    def at_once(self) -> bool:
        """Whether all tasks were trained together, in place of the first."""
        return learned_at_once(self.config)

    @property
    def learned_in(self) -> list[int]:
        """The row of the matrix where each task was just trained."""
        return learning_states(self.config, len(self.tasks))

    @property
    def measured(self) -> bool:
        """Whether accuracies were measured at all (of independent tasks, each on its own model alone)."""
        needed = [self.rows[:1].ravel(), self.final] if self.independent else [self.rows.ravel()]
        return self.rows.size > 0 and bool(np.isfinite(np.concatenate(needed)).all())

    @property
    def final(self) -> np.ndarray:
        """Accuracy on every learned task by the model that the run ends with, or by its own where there are
        many."""
        if self.independent:
            return np.diagonal(self.rows[1:])
        return self.rows[-1, : self.learned] if len(self.rows) else np.empty(0)

    def most_forgotten(self, of_classes: bool = False) -> int | None:
        """The task that lost most since its best, from 0; None where none has lost anything.

        Args:
            of_classes: whether tasks of captions, where no image has one right answer, are left out.
        """
        if self.independent or self.at_once or not self.measured or self.trained < 2:
            return None
        lost = np.array(metrics.forgetting(self.rows[:, : self.trained]))
        if of_classes:
            lost[[self.captioned(task) for task in range(self.trained)]] = 0.0
        return int(lost.argmax()) if lost.max() > 0 else None

    def captioned(self, task: int) -> bool:
        """Whether a task, from 0, has captions and no classes: its figure is a mean of two recalls."""
        return self.tasks[task] in (self.results.get("task_measures") or {})

    def images_of(self, task: int) -> int | None:
        """Number of images that accuracy on a task is a share of.

        None where that is not known, and for a task of captions: the mean of a share of the images and one of
        the texts is no share of either, and has no binomial interval.
        """
        details = self.results["tasks_detail"]
        by_test = self.config is None or self.config["scenario"].get("measure", "test") == "test"
        counts = by_test and task < len(details) and not self.captioned(task)
        return details[task].get("test_images") if counts else None


def load_run(folder: RunDir) -> LoadedRun:
    """Read what there is.

    Raises:
        UserError: if the folder is no run, or its results or configuration are damaged.
    """
    results = forms.read_json(folder.results)
    config = _config(folder)
    missing = []
    if results is None:
        if config is None:
            raise UserError(f"{folder.root}: is no run (it has no results.json)")
        results = _nothing_yet(folder, config)
        missing.append("Nothing has been measured yet: results.json is not there.")
    if config is None:
        missing.append(
            "config.yaml is missing: settings, splits and the command to repeat the run are not known."
        )
    run = LoadedRun(folder, _complete(folder, results), config, missing=missing)
    _read_tasks(run)
    run.explained = _optional(run, folder.root / "explain.json")
    run.membership = _optional(run, folder.root / "membership.json")
    run.curvature = _optional(run, folder.root / "curvature.json")
    run.regions = _optional(run, folder.root / "regions.json")
    return run


def _config(folder: RunDir) -> dict[str, Any] | None:
    config = folder.read_config()
    return config if config and config["scenario"]["tasks"] else None


def _nothing_yet(folder: RunDir, config: dict[str, Any]) -> dict[str, Any]:
    scenario = config["scenario"]
    return {
        "scenario": scenario.get("name", folder.root.name),
        "strategy": (config.get("strategy") or {}).get("name", NOT_TOLD),
        "seed": config.get("seed"),
        "model": config.get("model") or {},
        "tasks": [task["name"] for task in scenario["tasks"]],
        "status": "running",
        "software": config.get("software") or {},
        "device": config.get("device", NOT_TOLD),
    }


NOT_TOLD = "not told"
_HEADLINES = dict.fromkeys(("transfer", "average", "last", "forgetting", "bwt"))
_EMPTY: dict[str, Any] = {
    "model": {},
    "zero_shot_sets": [],
    "accuracy": [],
    "zero_shot": {},
    "retention": {},
    "tasks_detail": [],
    "software": {},
    "device": NOT_TOLD,
    "seed": None,
}


def _complete(folder: RunDir, results: Any) -> dict[str, Any]:
    """Results with every key that the report reads.

    Raises:
        UserError: if they are not those of a run.
    """
    try:
        whole = _EMPTY | results
        rows = np.array(whole["accuracy"], dtype=float).reshape(-1, len(whole["tasks"]))
        if len(rows) > len(whole["tasks"]) + 1 or not all(
            len(whole["zero_shot"][name]) == len(rows) for name in whole["zero_shot_sets"]
        ):
            raise ValueError("rows are missing or too many")
        _ = whole["scenario"], whole["strategy"], whole["status"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder.results}: is not what a run writes ({' '.join(str(error).split())[:200]})"
        ) from None
    forms.checked_results(folder.results, _HEADLINES | whole | {"seed": whole["seed"] or 0})
    return whole


def _read_tasks(run: LoadedRun) -> None:
    folder = run.folder
    names = ["zero-shot", *run.tasks[: run.trained]]
    records = [folder.record(index - 1, name) for index, name in enumerate(names)]
    run.records = [_optional(run, path, forms.StoredRecord) for path in records]
    analyses = [folder.analysis(index, name) for index, name in enumerate(names[1:])]
    run.analyses = [_optional(run, path, forms.Analysis) or {} for path in analyses]
    absent = [name for name, record in zip(names, run.records, strict=True) if record is None]
    if run.results["accuracy"] and absent:
        run.missing.append(
            f"The records of {', '.join(absent)} are missing: their curves and geometry are not shown."
        )


def _optional(run: LoadedRun, path: Path, form: type[BaseModel] = forms.Form) -> dict[str, Any] | None:
    try:
        found = forms.read_json(path)
        return None if found is None and not path.exists() else forms.checked(path, form, found)
    except UserError:
        run.missing.append(f"{path.relative_to(run.folder.root)} is damaged and left out.")
        return None
