"""Accuracy by shots: in results.json, report, terminal and table where shots are uneven, and nowhere else."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.report.comparison.tables import shots_table
from cl_complora.report.html import write_report
from cl_complora.run.by_shots import by_shots
from cl_complora.run.stream import run
from cl_complora.store.answers import answers_of
from cl_complora.store.folder import RunDir


def test_means_of_classes_by_hand():
    labels, answered = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 1, 0, 0])
    found = by_shots(answered, labels, [0, 1, 2, 3], ["many", "few", "few", "many"])
    assert found["many"] == 0.75 and found["few"] == 0.25  # the last class has no test image
    assert found["macro"] == pytest.approx(1.25 / 3) and math.isnan(found["medium"])


def test_a_run_of_uneven_shots_tells_them_apart(tmp_path, tiny_scenario, tiny_strategy):
    scenario = load_scenario(
        str(tiny_scenario), ["shots={most: 6, least: 1}", "shot_groups={many: 5, few: 2}"]
    )
    strategy = load_strategy(str(tiny_strategy), ["training.loss=balanced-softmax"])
    ran = run(scenario, strategy, out=tmp_path, analysis=False)
    told = ran.results["by_shots"]
    assert told["classes"]["warm"] == {"many": 1, "medium": 0, "few": 1}
    assert [len(rows) for rows in told["accuracy"].values()] == [3] * 4
    folder = RunDir(ran.folder)
    answered = answers_of(folder, folder.read_config(), "warm", 2).labels
    first = float((answered[:6] == 0).mean())  # six test images a class, in the order of the classes
    assert told["accuracy"]["many"][2][0] == pytest.approx(first)
    assert told["accuracy"]["macro"][2] == pytest.approx(ran.results["accuracy"][2])  # as many of each
    assert told["last"]["macro"] == pytest.approx(ran.results["last"])
    assert told["last"]["medium"] is None
    assert "by_shots" not in ran.results["tasks_detail"][0]
    assert "Accuracy by shots" in write_report(ran.folder).read_text(encoding="utf-8")


def test_a_run_of_even_shots_says_nothing(tiny_run):
    assert "by_shots" not in tiny_run.results


def test_the_table_of_a_comparison():
    method = {"name": "a", "figures": {"macro": [50.0, 52.0], "few": [10.0, 12.0]}}
    head, rows = shots_table({"methods": {"a": method, "b": {"name": "b", "figures": {}}}})
    assert head == ["method", "macro", "many", "medium", "few"]
    assert [cell.text for cell in rows[0]] == ["a", "51.0 ± 1.4", "–", "–", "11.0 ± 1.4"] and len(rows) == 1


def test_bounds_that_overlap_are_refused(tiny_scenario):
    with pytest.raises(UserError, match="shot_groups.few: must be at most many"):
        load_scenario(str(tiny_scenario), ["shot_groups={many: 3, few: 9}"])
