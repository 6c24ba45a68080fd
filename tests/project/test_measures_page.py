"""docs/measures.md explains every number that a run and what is made of it tell."""

from __future__ import annotations

import re

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from builders.places import ROOT
from cl_complora.compare.method import BESIDE, METRICS
from cl_complora.run.results import LABEL_UNITS, RETRIEVAL_UNITS, UNITS
from cl_complora.store.forms import PRECISIONS, Results

PAGE = (ROOT / "docs" / "measures.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([^`\n]+)`", PAGE))


def test_every_key_of_the_results_is_explained(tiny_run):
    keys = set(tiny_run.results) | set(Results.model_fields) | set(UNITS | RETRIEVAL_UNITS | LABEL_UNITS)
    assert keys - NAMED == set()
    assert set(tiny_run.results["tasks_detail"][0]) - NAMED == set()
    assert set(PRECISIONS) | {"head", "fitted", "now"} <= NAMED


def test_every_tag_of_tensorboard_is_explained(tiny_run):
    events = EventAccumulator(str(tiny_run.folder / "tensorboard")).Reload()
    tags = {tag.partition("/")[0] for tag in events.Tags()["scalars"]}
    assert len(tags) > 8 and tags - NAMED == set()


@pytest.mark.parametrize("metric", (*METRICS, *BESIDE))
def test_every_metric_of_a_comparison_is_explained(metric):
    assert metric in NAMED


def test_units_are_those_of_the_results(tiny_run):
    for key, unit in (UNITS | RETRIEVAL_UNITS | LABEL_UNITS).items():
        (row,) = re.findall(rf"^\| `{key}` \| (\w+) \|", PAGE, re.MULTILINE)
        assert row == unit, key


def test_lines_are_short_and_the_page_is_found():
    assert max(map(len, PAGE.splitlines())) <= 120
    assert "[measures.md](measures.md)" in (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
