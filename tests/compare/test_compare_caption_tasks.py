"""A comparison on a stream with a task of captions."""

from __future__ import annotations

import json

import pytest

from builders.caption_tasks import with_captions
from builders.runs import STRATEGY
from cl_complora.compare.study import Request, compare
from cl_complora.report.comparison.tables import RETRIEVAL, tables


def test_its_recall_counts_as_accuracy_and_has_no_retention(tmp_path, tiny_scenario):
    file = with_captions(tmp_path, tiny_scenario.read_text())
    (tmp_path / "quick.yaml").write_text(STRATEGY.format(name="quick"))
    strategies = (str(tmp_path / "quick.yaml"), "zeroshot")
    found = compare(
        Request(str(file), strategies, seeds=(0,), reference="zeroshot"), out=tmp_path / "runs"
    ).content()
    found = json.loads(json.dumps(found))
    made = tables(found)
    assert not set(RETRIEVAL.values()) & set(made["Accuracy"].head)
    results = json.loads((tmp_path / "runs" / "tiny" / "quick" / "seed0" / "results.json").read_text())
    last = 100 * sum(results["accuracy"][-1]) / 3
    assert found["methods"]["quick"]["figures"]["last"] == [pytest.approx(last)]
