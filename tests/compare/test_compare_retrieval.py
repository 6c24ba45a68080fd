"""A comparison on a scenario with captions: columns of retention of R@1 both ways, paired by query."""

from __future__ import annotations

import json

import pytest

from builders.captions import json_lines, painted
from builders.runs import STRATEGY
from cl_complora.compare.study import Request, compare
from cl_complora.report.comparison.saving import save
from cl_complora.report.comparison.tables import RETRIEVAL, tables

DIRECTIONS = ("image_to_text", "text_to_image")


@pytest.fixture(scope="module")
def compared(tmp_path_factory, tiny_scenario):
    folder = tmp_path_factory.mktemp("captioned")
    painted(folder)
    json_lines(folder / "captions.jsonl")
    (folder / "quick.yaml").write_text(STRATEGY.format(name="quick"))
    more = "\nretrieval:\n  - {name: told, source: {kind: captions, file: captions.jsonl}}\n"
    (folder / "scenario.yaml").write_text(tiny_scenario.read_text() + more)
    scenario, strategies = str(folder / "scenario.yaml"), (str(folder / "quick.yaml"), "zeroshot")
    request = Request(scenario, strategies, seeds=(0,), reference="zeroshot")
    return compare(request, out=folder / "runs")


def test_retention_of_recall_has_a_column_each_way(compared):
    quick, zeroshot = compared.methods
    for direction in DIRECTIONS:
        assert zeroshot.figures[direction] == [0.0] and len(quick.figures[direction]) == 1
        difference = quick.differences[direction]
        assert difference.mean == pytest.approx(quick.figures[direction][0])
        assert difference.test == "McNemar"
        assert difference.pairs == {"image_to_text": 4, "text_to_image": 8}[direction]
    found = json.loads(json.dumps(compared.content()))
    made = tables(found)
    for title in ("Accuracy", "Paired differences"):
        assert list(made[title].head[-2:]) == list(RETRIEVAL.values())


def test_files_of_a_comparison_hold_them(compared, tmp_path):
    found = json.loads(json.dumps(compared.content()))
    save(found, tmp_path)
    assert "image_to_text_mean" in (tmp_path / "comparison.csv").read_text().splitlines()[0]
    for method in found["methods"].values():  # as earlier versions, and scenarios without captions, have it
        for direction in DIRECTIONS:
            del method["figures"][direction]
            method["differences"].pop(direction, None)
    assert not set(RETRIEVAL.values()) & set(tables(found)["Accuracy"].head)
