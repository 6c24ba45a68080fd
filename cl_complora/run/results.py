"""results.json as a function of the records of a run's tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from .. import metrics
from ..errors import UserError
from ..store.folder import RunDir
from ..store.forms import DIRECTIONS, PRECISIONS, RECALLS
from ..store.provenance import gpu_of, software
from ..store.records import Record
from .by_shots import results_by_shots
from .devices import told_device
from .head_drift import head_drift
from .inputs import RunInputs

SCHEMA = 1
# Of the numbers that a table may put side by side: forgetting 0.02 and retention −2 are as much.
UNITS = {
    **dict.fromkeys(
        ("accuracy", "zero_shot", "transfer", "average", "last", "forgetting", "bwt"), "fraction"
    ),
    "retention": "points",
}
LABEL_UNITS = {"multi_label": "fraction", "multi_label_retention": "points"}
DRIFT_UNITS = {"head_drift": "fraction"}
# In the untouched model's record, where answers were not computed in 32 bits.
CHANGED = "changed_answers"
# What stands in the matrix for a task of captions, in place of accuracy.
MEAN_RECALL = "mean R@1 of both directions"
RETRIEVAL_UNITS = {"retrieval": "fraction", "retrieval_retention": "points"}


def results_of(run: RunInputs, records: Sequence[Record]) -> dict[str, Any]:
    """Content of results.json for the tasks done so far (the interface is described in docs/architecture.md).

    Args:
        run: what was run.
        records: the untouched model's, then one for every finished task.
    """
    scenario, plans = run.scenario, run.plans
    rows = [record.row for record in records]
    zero_shot = {p.name: [record.zero_shot[p.name] for record in records] for p in plans.zero_shot}
    kept = metrics.mean_retention if scenario.independent else metrics.retention
    asked = plans.measured_captions(scenario.measure)
    retrieval = {p.name: _curves(records, p.name) for p in asked}
    tasks_of_captions = {p.name: MEAN_RECALL for p in plans.tasks if p.captioned}
    captioned = {
        "retrieval_queries": {p.name: {"images": len(p.test), "texts": len(p.captions)} for p in asked},
        "retrieval": retrieval,
        # What a task has learned is nothing that could be retained.
        "retrieval_retention": {
            p.name: {direction: kept(shares["R@1"]) for direction, shares in retrieval[p.name].items()}
            for p in plans.retrieval
        },
    }
    labelled = {
        p.name: {key: [record.multi_label[p.name][key] for record in records] for key in PRECISIONS}
        for p in plans.multi_label
    }
    several = {
        "multi_label": labelled,
        "multi_label_retention": {name: kept(curves["mAP"]) for name, curves in labelled.items()},
        "multi_label_images": {
            p.name: {
                "images": len(p.test),
                "classes": len(p.class_names),
                "counted": p.counted,
                "compound_prompts": len(p.compound.texts),
            }
            for p in plans.multi_label
        },
    }
    shots = results_by_shots(scenario, plans, records)
    drift = head_drift(run, records)
    changed = {key: value for key, value in records[0].detail.items() if key == CHANGED}
    return {
        "schema": SCHEMA,
        "scenario": scenario.name,
        "strategy": run.strategy.name,
        "seed": run.seed,
        "model": {"name": run.loaded.name, "pretrained": run.loaded.pretrained, "sha256": run.loaded.sha256},
        "tasks": [p.name for p in plans.tasks],
        "zero_shot_sets": [p.name for p in plans.zero_shot],
        "zero_shot_images": {p.name: len(p.test) for p in plans.zero_shot},
        "accuracy": rows,
        **({"task_measures": tasks_of_captions} if tasks_of_captions else {}),
        "zero_shot": zero_shot,
        "independent": scenario.independent,
        **(metrics.of_independent(rows) if scenario.independent else metrics.so_far(rows)),
        # Where all tasks are trained at once none is unseen.
        **({} if run.strategy.training.stream != "joint" else {"transfer": math.nan}),
        "retention": {name: kept(values) for name, values in zero_shot.items()},
        **(captioned if retrieval else {}),
        **(several if labelled else {}),
        **({} if shots is None else {"by_shots": shots}),
        **({} if drift is None else {"head_drift": drift}),
        "units": UNITS
        | (RETRIEVAL_UNITS if retrieval else {})
        | (LABEL_UNITS if labelled else {})
        | (DRIFT_UNITS if drift is not None else {}),
        "skipped": list(plans.skipped),
        "tasks_detail": [record.detail for record in records[1:]],
        "status": "done" if len(records) == len(plans.tasks) + 1 else "running",
        "software": software(),
        "device": told_device(run.device),
        "evaluation": {"precision": scenario.evaluation.precision, **changed},
        **({"elsewhere": list(run.elsewhere)} if run.elsewhere else {}),
        **run.made_where,
    }


def made_where(folder: RunDir, tasks: int, here: str) -> dict[str, Any]:
    """``software`` and ``device`` of a run that is done, as its results.json says them or, without one, its
    config.yaml; what is the same here is left out, since config.yaml knows less of it.

    Args:
        folder: the run.
        tasks: of its stream.
        here: the device that its results.json may be written again on.

    Raises:
        UserError: if config.yaml is damaged.
    """
    with suppress(UserError):
        stored = folder.read_results()
        if stored is not None and len(stored["accuracy"]) > tasks:
            return {key: stored[key] for key in ("software", "device")}
    config = folder.read_config() or {}
    versions, device, gpu = config.get("software") or {}, config.get("device"), config.get("gpu")
    told: dict[str, Any] = {}
    if not versions.items() <= software().items():
        told["software"] = versions
    if device and (device, gpu) != (here.partition(":")[0], gpu_of(here)):
        told["device"] = f"{device} ({gpu})" if gpu else device
    return told


def _curves(records: Sequence[Record], name: str) -> dict[str, dict[str, list[float]]]:
    """Direction → R@k → its value in every state."""
    return {
        direction: {told: [record.retrieval[name][direction][told] for record in records] for told in RECALLS}
        for direction in DIRECTIONS
    }
