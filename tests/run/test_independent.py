"""Independent tasks: each learned from the pretrained weights, measured by itself, with the zero-shot sets
after it."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch

from builders.interruptions import AfterFirstTask, Stop, same_bits
from builders.runs import deltas_of, without_timings
from cl_complora.compare.choosing import SCORES
from cl_complora.compare.statistics import per_unit
from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.run.stream import run

METHODS = ("complora", "finetune", "lora+ewc", "replay", "lwf", "lora+tokens")
MEASURED = ("complora", "lora+ewc")  # of the others, what they learn is enough


def go(tiny_scenario, out, strategy="complora", settings=("independent=true",), **options):
    quick = load_strategy(strategy, ["training.steps=3", "training.batch_size=4"])
    return run(load_scenario(str(tiny_scenario), list(settings)), quick, out=out, analysis=False, **options)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_scenario):
    """A finished run of a strategy on independent tasks, for reading only."""

    @functools.cache
    def finished(strategy: str):
        out = tmp_path_factory.mktemp("alone")
        return go(tiny_scenario, out, strategy, evaluate=strategy in MEASURED)

    return finished


@pytest.mark.parametrize("strategy", METHODS)
def test_a_task_learns_what_it_learns_as_the_first_of_a_stream(tmp_path, tiny_scenario, strategy, alone):
    """The second task alone does what a stream that begins with it does, but for the seeds of its batches."""
    measured = strategy == "complora"
    stream = go(tiny_scenario, tmp_path, strategy, settings=(), evaluate=measured)
    ours, others = deltas_of(alone(strategy).folder), deltas_of(stream.folder)
    first, second = sorted(ours)
    assert all(torch.equal(ours[first][key], others[first][key]) for key in ours[first])
    assert any(
        not torch.equal(ours[second][key], others[second].get(key, torch.zeros(0))) for key in ours[second]
    )
    if measured:
        rows = alone(strategy).results["accuracy"]
        assert rows[1][0] == stream.results["accuracy"][1][0] is not None
        assert rows[1][1] is None and rows[2][0] is None and rows[2][1] is not None


def test_a_task_is_not_touched_by_the_one_before(tmp_path, tiny_scenario, alone):
    """Other images of the first task change nothing in the second."""
    other = go(tiny_scenario, tmp_path, settings=("independent=true", "tasks.0.shots=1"), evaluate=False)
    ours, others = deltas_of(alone("complora").folder), deltas_of(other.folder)
    first, second = sorted(ours)
    assert all(torch.equal(ours[second][key], others[second][key]) for key in ours[second])
    assert any(not torch.equal(ours[first][key], others[first][key]) for key in ours[first])


def test_the_numbers(alone):
    results = alone("complora").results
    own = [results["accuracy"][1][0], results["accuracy"][2][1]]
    assert results["independent"] and results["last"] == pytest.approx(np.mean(own))
    assert all(results[key] is None for key in ("transfer", "average", "forgetting", "bwt"))
    before, *after = results["zero_shot"]["colours"]
    assert results["retention"]["colours"] == pytest.approx(100 * (np.mean(after) - before))
    assert per_unit([results], "last").tolist() == [pytest.approx([100 * value for value in own])]
    assert math.isnan(per_unit([results], "forgetting").mean())
    assert SCORES["harmonic"](results) > 0


def test_interrupted_and_resumed_is_the_same_to_the_bit(tmp_path, tiny_scenario, alone):
    with pytest.raises(Stop):
        go(tiny_scenario, tmp_path, "lora+ewc", progress=AfterFirstTask())
    parts = go(tiny_scenario, tmp_path, "lora+ewc")
    assert parts.reused == 1 and same_bits(parts.folder, alone("lora+ewc").folder)
    assert without_timings(parts.results) == without_timings(alone("lora+ewc").results)


def test_what_does_not_go_together_is_told(tmp_path, tiny_scenario):
    with pytest.raises(
        UserError, match=r"independent=true: class-incremental tells the classes of all tasks apart"
    ):
        load_scenario(str(tiny_scenario), ["independent=true", "protocol=class-incremental"])
    with pytest.raises(UserError, match=r"training.stream: joint trains tasks together"):
        go(tiny_scenario, tmp_path, "joint")
    assert not list(tmp_path.iterdir())
