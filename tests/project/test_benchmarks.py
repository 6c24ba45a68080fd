"""Every benchmark at a tiny size: both sides run and agree, the JSON is what it says, a wrong peer is
refused."""

from __future__ import annotations

import importlib
import itertools
import json
import math

import pytest
import torch
from rich.console import Console

from benchmarks import memory
from benchmarks.__main__ import MODULES, report, show
from benchmarks.clips import random_clip
from benchmarks.peers import ClipLoRALoop, Engine
from benchmarks.step import check
from benchmarks.timing import Case, Check, Goal, Side, compare, relative, worst
from builders.places import LONG
from cl_complora.engine.constraints import Constraint
from cl_complora.store.provenance import PeakMemory

# Those that run in processes of their own import torch and Avalanche anew for every side.
PEERS = {
    "step": {"LoRA (ours)", "CLIP-LoRA's loop", "full fine-tuning, plain Avalanche", "forward only"},
    "subspace": {"torch.linalg.svd, float32", "torch.linalg.svd, float64"},
    "eval": {"JPEG loader of 0 workers", "raw forward of the image tower"},
    "rate": {"raw forward of the image tower"},
    "memory": {"CLIP-LoRA's loop", "full fine-tuning, plain Avalanche"},
    "stream": {"plain Avalanche", "the model alone"},
    "scaling": set(),
    "busy": {"torch's default"},
    "start": {"nothing deferred"},
    "graph": set(),
    "mtil": set(),
}


# Their sides are processes of their own.
LONG_ONES = ("busy", "start", "stream", "mtil")


@pytest.fixture
def mostly_here(monkeypatch):
    """Sides that are measured in processes of their own: in the short form the first one is, and the others
    run here, where their memory is nobody's and so is counted up."""
    if LONG:
        return
    sides, bytes_ = iter([memory.apart]), itertools.count(10**6, 10**6)
    monkeypatch.setattr(memory, "apart", lambda side, *words: next(sides, _called)(side, *words))
    monkeypatch.setattr(PeakMemory, "bytes", lambda self: next(bytes_))


def _called(side, *words):
    return side(*words)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.skipif(name in LONG_ONES and not LONG, reason="make test-faults")
        )
        for name in MODULES
    ],
)
def test_it_runs_and_both_sides_agree(name, mostly_here):
    cases = list(importlib.import_module(f"benchmarks.{MODULES[name]}").measure("tiny"))
    entry = json.loads(json.dumps(report(cases)))
    assert {"benchmark", "work", "ours", "peers", "further", "machine", "versions", "date"} <= set(entry)
    assert entry["benchmark"] == name and PEERS[name] <= set(entry["peers"])
    for each in [entry, *entry["further"]]:
        assert each["ours"]["median_s"] > 0 and not each["refused"]
        for peer in each["peers"].values():
            assert {"median_s", "ratio", "max_difference"} <= set(peer)
            assert peer["ratio"] > 0 and math.isfinite(peer["max_difference"])
    for case in cases:
        show(Console(quiet=True), case)


def test_a_peer_that_computes_something_else_is_refused():
    same = Check("the sum", 1e-9, 1e-6)
    peers = [
        Side("right", lambda: None, [same]),
        Side("wrong", lambda: None, [same, Check("the product", 0.3, 1e-3)]),
        Side("undefined", lambda: None, [Check("the product", math.nan, 1e-3)]),
        Side("unchecked", lambda: None),
    ]
    case = compare("test", "nothing", Side("ours", lambda: None), peers, repeats=2)
    assert set(case.peers) == {"right"} and set(case.refused) == {"wrong", "undefined", "unchecked"}
    assert "the product differs by 3.0e-01" in case.refused["wrong"]


def test_a_training_step_with_another_loss_is_noticed():
    clip = random_clip("tiny")
    peer, plain = ClipLoRALoop(random_clip("tiny")), Engine("ours", clip, Constraint(select="none"))
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    assert all(one.holds for one in check(peer, plain, images, labels, 5))
    wrong = ClipLoRALoop(random_clip("tiny"))
    wrong.clip.logit_scale.data += 0.5
    assert not any(one.holds for one in check(wrong, plain, images, labels, 5)[:2])


def test_a_step_is_computed_in_the_precision_that_is_told():
    engine = Engine("x", random_clip("tiny"), Constraint(), precision=torch.bfloat16)
    assert engine.classifier.precision == torch.bfloat16 and engine.classifier.label_space is None


def test_differences_of_what_cannot_be_compared_are_infinite():
    assert relative(torch.ones(2), torch.ones(3)) == math.inf
    assert worst({"a": torch.ones(1)}, {"b": torch.ones(1)}) == math.inf
    assert worst({}, {}) == math.inf
    assert relative(torch.tensor([1.1]), torch.tensor([1.0])) == pytest.approx(0.1)


def test_a_goal_says_whether_it_is_met():
    assert Goal("times", 3.1, 3.0).met and not Goal("times", 2.9, 3.0).met
    assert Goal("overhead", 4.0, 10.0, at_most=True).met
    case = Case("b", "w", {"name": "ours", "median_s": 1.0, "spread_s": [1, 1], "cpu_median_s": 1.0})
    case.goals, case.left_out = [Goal("times", 1.0, 2.0, bound_by="arithmetic")], {"PEFT": "not installed"}
    console = Console(record=True, width=120)
    show(console, case)
    told = console.export_text()
    assert "MISSED, bound by arithmetic" in told and "not run: PEFT: not installed" in told
