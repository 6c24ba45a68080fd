"""Independent tasks: each learned from the pretrained weights, measured by itself, with the zero-shot sets
after it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from builders.runs import deltas_of, without_timings
from cl_complora.compare.choosing import SCORES
from cl_complora.compare.statistics import per_unit
from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.progress import Quiet
from cl_complora.run.stream import run

METHODS = ("complora", "finetune", "lora+ewc", "replay", "lwf", "lora+tokens")


def go(tiny_scenario, out, strategy="complora", settings=("independent=true",), **options):
    quick = load_strategy(strategy, ["training.steps=3", "training.batch_size=4"])
    return run(load_scenario(str(tiny_scenario), list(settings)), quick, out=out, **options)


@pytest.mark.parametrize("strategy", METHODS)
def test_a_task_learns_what_it_learns_as_the_first_of_a_stream(tmp_path, tiny_scenario, strategy):
    """The second task alone does what a stream that begins with it does, but for the seeds of its batches."""
    alone = go(tiny_scenario, tmp_path / "alone", strategy)
    stream = go(tiny_scenario, tmp_path / "stream", strategy, settings=())
    ours, others = deltas_of(alone.folder), deltas_of(stream.folder)
    first, second = sorted(ours)
    assert all(torch.equal(ours[first][key], others[first][key]) for key in ours[first])
    assert alone.results["accuracy"][1][0] == stream.results["accuracy"][1][0]
    assert alone.results["accuracy"][1][1] is None and alone.results["accuracy"][2][0] is None
    assert any(
        not torch.equal(ours[second][key], others[second].get(key, torch.zeros(0))) for key in ours[second]
    )


def test_a_task_is_not_touched_by_the_one_before(tmp_path, tiny_scenario):
    """Other images of the first task change nothing in the second."""
    one = go(tiny_scenario, tmp_path / "one")
    other = go(tiny_scenario, tmp_path / "other", settings=("independent=true", "tasks.0.shots=1"))
    ours, others = deltas_of(one.folder), deltas_of(other.folder)
    first, second = sorted(ours)
    assert all(torch.equal(ours[second][key], others[second][key]) for key in ours[second])
    assert any(not torch.equal(ours[first][key], others[first][key]) for key in ours[first])


def test_the_numbers(tmp_path, tiny_scenario):
    results = go(tiny_scenario, tmp_path).results
    own = [results["accuracy"][1][0], results["accuracy"][2][1]]
    assert results["independent"] and results["last"] == pytest.approx(np.mean(own))
    assert all(results[key] is None for key in ("transfer", "average", "forgetting", "bwt"))
    before, *after = results["zero_shot"]["colours"]
    assert results["retention"]["colours"] == pytest.approx(100 * (np.mean(after) - before))
    assert per_unit([results], "last").tolist() == [pytest.approx([100 * value for value in own])]
    assert math.isnan(per_unit([results], "forgetting").mean())
    assert SCORES["harmonic"](results) > 0


class _Stop(Exception):
    pass


class StopAfter(Quiet):
    def evaluated(self, index, row, zero_shot):
        if index == 1:
            raise _Stop


def test_interrupted_and_resumed_is_the_same_to_the_bit(tmp_path, tiny_scenario):
    whole = go(tiny_scenario, tmp_path / "whole", "lora+ewc")
    with pytest.raises(_Stop):
        go(tiny_scenario, tmp_path / "parts", "lora+ewc", progress=StopAfter())
    parts = go(tiny_scenario, tmp_path / "parts", "lora+ewc")
    assert without_timings(parts.results) == without_timings(whole.results)


def test_what_does_not_go_together_is_told(tmp_path, tiny_scenario):
    with pytest.raises(
        UserError, match=r"independent=true: class-incremental tells the classes of all tasks apart"
    ):
        load_scenario(str(tiny_scenario), ["independent=true", "protocol=class-incremental"])
    with pytest.raises(UserError, match=r"training.stream: joint trains tasks together"):
        go(tiny_scenario, tmp_path, "joint")
    assert not list(tmp_path.iterdir())
