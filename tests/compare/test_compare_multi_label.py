"""A comparison on a scenario with images of several labels: a column of the retention of mAP."""

from __future__ import annotations

import json

import pytest

from builders.captions import painted
from builders.runs import STRATEGY
from cl_complora.compare.study import Request, compare
from cl_complora.report.comparison.saving import save
from cl_complora.report.comparison.tables import BESIDE, tables


@pytest.fixture(scope="module")
def compared(tmp_path_factory, tiny_scenario):
    folder = tmp_path_factory.mktemp("labelled")
    painted(folder)
    rows = [
        {"image": "red.png", "labels": ["warm", "red"]},
        {"image": "yellow.png", "labels": ["warm"]},
        {"image": "green.png", "labels": []},
        {"image": "blue.png", "labels": ["cold"]},
    ]
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "quick.yaml").write_text(STRATEGY.format(name="quick"))
    more = "\nmulti_label:\n  - {name: several, source: {kind: multi-label, file: labels.jsonl}}\n"
    (folder / "scenario.yaml").write_text(tiny_scenario.read_text() + more)
    scenario, strategies = str(folder / "scenario.yaml"), (str(folder / "quick.yaml"), "zeroshot")
    request = Request(scenario, strategies, seeds=(0,), reference="zeroshot")
    return compare(request, out=folder / "runs")


def test_retention_of_precision_has_a_column(compared, tmp_path):
    quick, zeroshot = compared.methods
    assert zeroshot.figures["multi_label"] == [0.0] and len(quick.figures["multi_label"]) == 1
    assert quick.differences["multi_label"].mean == pytest.approx(quick.figures["multi_label"][0])
    found = json.loads(json.dumps(compared.content()))
    made = tables(found)
    for title in ("Accuracy", "Paired differences"):
        assert made[title].head[-1] == BESIDE["multi_label"]
        assert "retention R@1 image→text" not in made[title].head
    save(found, tmp_path)
    assert "multi_label_mean" in (tmp_path / "comparison.csv").read_text().splitlines()[0]
