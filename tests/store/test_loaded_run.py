"""What a report reads of a run's folder: of how many images a figure is a share."""

from __future__ import annotations

import pytest

from cl_complora.analysis.paired import PairedChanges
from cl_complora.report.elements import NOTHING
from cl_complora.report.run.forgetting import forgetting
from cl_complora.store.folder import RunDir
from cl_complora.store.loaded_run import LoadedRun

RECALL = "mean R@1 of both directions"


def loaded(folder, tasks: list[str], captioned: list[str], independent: bool = False) -> LoadedRun:
    """A finished run of tasks that were measured on 50 images each."""
    rows = [[0.5] * len(tasks), *[[0.6] * len(tasks) for _ in tasks]]
    results = {
        "tasks": tasks,
        "accuracy": rows,
        "zero_shot_sets": [],
        "zero_shot": {},
        "tasks_detail": [{"name": name, "test_images": 50} for name in tasks],
        "independent": independent,
        "status": "done",
    }
    if captioned:
        results["task_measures"] = dict.fromkeys(captioned, RECALL)
    return LoadedRun(RunDir(folder), results, None)


def table_of(run: LoadedRun):
    (table,) = [part for part in forgetting(run, PairedChanges()) if part.kind == "table"]
    return table


@pytest.mark.parametrize("independent", [False, True])
def test_the_recall_of_captions_has_no_binomial_interval(tmp_path, independent):
    """The mean of a share of the images and one of the texts is no share of the images."""
    run = loaded(tmp_path, ["warm", "told", "cold"], ["told"], independent)
    assert [run.images_of(place) for place in range(3)] == [50, None, 50]
    assert [run.captioned(place) for place in range(3)] == [False, True, False]
    table = table_of(run)
    place = table.head.index("95 % interval")
    warm, told, cold = (row[place].text for row in table.rows)
    assert told == NOTHING and warm == cold != NOTHING and "–" in warm


def test_without_any_there_is_no_column_of_intervals(tmp_path):
    run = loaded(tmp_path, ["told"], ["told"])
    assert "95 % interval" not in table_of(run).head
    assert "95 % interval" in table_of(loaded(tmp_path, ["warm"], [])).head
