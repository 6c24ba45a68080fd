"""The head of a run's page, its order, what became of every class, and of every task since its training."""

from __future__ import annotations

import json
import os
import re
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from builders.pages import read
from builders.reported import forgetful_run
from cl_complora.report.elements import Terms
from cl_complora.report.html import write_report
from cl_complora.report.run.facts import facts
from cl_complora.report.run.page import _origin
from cl_complora.store.folder import RunDir
from cl_complora.store.loaded_run import load_run


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory) -> Path:
    return forgetful_run(tiny_run.folder, tmp_path_factory.mktemp("runs") / "seed0")


@pytest.fixture(scope="module")
def page_file(finished, tmp_path_factory) -> Path:
    """Its page, for reading only."""
    return write_report(finished, tmp_path_factory.mktemp("page") / "page.html")


def test_the_head_tells_what_was_run_and_when(finished):
    run = load_run(RunDir(finished))
    written = datetime(2026, 3, 4, 5, 6)
    os.utime(run.folder.record(1, "cold"), (written.timestamp(),) * 2)
    details = run.results["tasks_detail"]
    for detail, seconds in zip(details, (50, 45), strict=True):
        detail.update(train_seconds=seconds, eval_seconds=1800, shots=[2, 16], steps=40)
    run.config["strategy"] |= {
        "adapter": {"kind": "lowrank", "rank": 4, "rank_last": 8},
        "optimiser": {"lr": 1e-3, "rates": {"text": 4e-3}},
    }
    told = facts(run)
    assert told["Last task finished"] == "2026-03-04 05:06"
    assert told["Time"] == "1 min 35 s training, 1 h 0 min measuring"
    assert (told["Shots per class"], told["Steps per task"]) == ("2–16", "40")
    assert (told["Rank"], told["Learning rate"]) == ("4 to 8", "0.001 (text 0.004)")


def test_the_head_leaves_out_what_does_not_hold(finished, tmp_path):
    run = load_run(RunDir(shutil.copytree(finished, tmp_path / "seed0")))
    run.config["strategy"]["adapter"] = {"kind": "full"}
    for detail in run.results["tasks_detail"]:
        detail.update(shots=None, steps=0)
    run.folder.record(1, "cold").unlink()
    told = facts(run)
    assert not {"Rank", "Learning rate", "Last task finished"} & set(told)
    assert told["Shots per class"] == "all images"
    run.config = None
    assert "Rank" not in facts(run)


def test_zero_shot_comes_right_after_accuracy(page_file):
    text = page_file.read_text(encoding="utf-8")
    anchors = re.findall(r'<section id="(\w[\w-]*)"', text)
    assert anchors[:4] == ["summary", "accuracy", "zero-shot", "forgetting"]
    for word in (
        "BWT (backward transfer)",
        "centred kernel alignment",
        "Energy: the sum",
        "Effective rank: how",
    ):
        assert word in text, word


def test_every_class_before_and_now(page_file):
    page = read(page_file)
    head, *rows = page.tables["Every class"]
    assert [text for text, _ in head] == [
        "class", "task", "images", "untouched %", "just trained %", "now %", "change"
    ]  # fmt: skip
    warm = {row[0][0]: [value for _, value in row[2:]] for row in rows if row[1][0] == "warm"}
    assert sum(v[0] * v[2] for v in warm.values()) == pytest.approx(12)
    assert sum(v[0] * v[3] for v in warm.values()) == pytest.approx(9)
    assert warm["red"][4] == min(v[4] for v in warm.values()) < 0
    assert rows[0][0][0] == "red"


def test_the_change_since_training_is_drawn(page_file):
    text = page_file.read_text(encoding="utf-8")
    assert "Change of accuracy on warm since it was just trained" in text
    assert "Change of accuracy on cold since" not in text  # the last task has none


def test_the_explanation_says_what_follows_and_leaves_out_what_brings_nothing_back(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "seed0")
    told = json.loads((folder / "explain.json").read_text())
    pair = told["pairs"][0]
    pair["parts"][1]["cost"] = 4.0
    pair["parts"] += [{"kind": "layer", "name": f"text {n}", "returned": 0.0, "cost": 0.0} for n in range(3)]
    (folder / "explain.json").write_text(json.dumps(told))
    page = read(write_report(folder))
    assert (
        "warm lost 50.0 points to cold. Without one part of the update, layer vision 1, 33.2 points of them"
        " come back, and cold loses 4.0." in page.text
    )
    assert len(page.tables["warm after cold"]) == 3
    assert "3 of 5 parts bring nothing back and are left out." in page.text
    assert "The first" not in page.text


def test_a_run_that_went_on_elsewhere_twice_from_one_task_says_both(finished):
    run = load_run(RunDir(finished))
    changes = ({"device": ["cuda:0", "cpu"]}, {"torch": ["2.6", "2.7"]})
    run.results["elsewhere"] = [{"from_task": "warm", "changed": change} for change in changes]
    (told,) = (block.terms for block in _origin(run) if isinstance(block, Terms))
    assert told["Gone on elsewhere from warm on"] == "device cuda:0 → cpu; torch 2.6 → 2.7"
