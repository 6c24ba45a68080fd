"""``steps: auto``: how many steps a task of so many images has, and that a run records and repeats them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from builders.runs import without_timings
from cl_complora.config import load_scenario, load_strategy
from cl_complora.engine.experience import steps_at
from cl_complora.errors import UserError
from cl_complora.report.tensorboard.hparams import table_row
from cl_complora.run.signals import Stopped, Stopping
from cl_complora.run.stream import run

AUTO = ["training.steps=auto", "training.epochs=2", "training.bounds=[3, 5]", "training.batch_size=4"]


def training(*settings: str):
    return load_strategy("lora", ["training.steps=auto", *settings]).value.training


@pytest.mark.parametrize("images, steps", [(1, 40), (52, 41), (96, 75), (513, 400), (10_000, 400)])
def test_steps_follow_the_images_within_their_bounds(images, steps):
    assert training("training.batch_size=32").steps_for(images) == steps


@pytest.mark.parametrize(
    "stream, expected", [("sequential", [4, 10]), ("cumulative", [4, 12]), ("joint", [14, 0])]
)
def test_every_stream_has_the_steps_of_what_it_trains(stream, expected):
    how = training(
        f"training.stream={stream}", "training.batch_size=10", "training.epochs=2", "training.bounds=[1, 12]"
    )
    tasks = [SimpleNamespace(train=range(20)), SimpleNamespace(train=range(47))]
    assert [steps_at(how, tasks, position) for position in range(2)] == expected


def test_fixed_steps_stay_what_they_were():
    tasks = [SimpleNamespace(train=range(20)), SimpleNamespace(train=range(47))]
    for stream, expected in (("sequential", [40, 40]), ("cumulative", [40, 40]), ("joint", [80, 0])):
        how = load_strategy("lora", [f"training.stream={stream}"]).value.training
        assert [steps_at(how, tasks, position) for position in range(2)] == expected


def test_a_run_records_its_steps_and_goes_on_with_them(tiny_scenario, tmp_path, monkeypatch):
    scenario = load_scenario(str(tiny_scenario))
    strategy = load_strategy("lora", AUTO)
    whole = run(scenario, strategy, out=tmp_path / "whole", analysis=False)
    assert [task["steps"] for task in whole.results["tasks_detail"]] == [3, 3]  # 6 images, twice, 4 at a time
    calls = []
    monkeypatch.setattr(Stopping, "is_asked", lambda self: calls.append(1) or len(calls) == 2)
    monkeypatch.setattr(Stopping, "raise_if_asked", stop_once(calls))
    with pytest.raises(Stopped):
        run(scenario, strategy, out=tmp_path / "parts", analysis=False)
    monkeypatch.undo()
    parts = run(scenario, strategy, out=tmp_path / "parts", analysis=False)
    assert without_timings(parts.results) == without_timings(whole.results)


def stop_once(calls):
    def raise_if_asked(self):
        if len(calls) == 2:
            raise Stopped(15)

    return raise_if_asked


def test_a_table_has_no_single_number_of_steps():
    strategy = load_strategy("lora", AUTO).value.model_dump(mode="json")
    config = {"scenario": {"name": "s", "shots": 1}, "seed": 0, "model": {"name": "m"}, "strategy": strategy}
    assert "steps" not in table_row(config)


BAD = [
    (["training.steps=many"], "must be a whole number or 'auto'"),
    (["training.steps=0"], "must be at least 1"),
    (["training.epochs=3"], "has no effect with steps: 40, only with steps: auto"),
    (["training.bounds=[1, 2]"], "has no effect"),
    (["training.steps=auto", "training.bounds=[9, 2]"], "must be the fewest and the most"),
    (["training.steps=auto", "training.average_every=50"], "must be at most the fewest steps of bounds .40."),
]


@pytest.mark.parametrize("settings, told", BAD)
def test_what_auto_does_not_take_is_refused(settings, told):
    with pytest.raises(UserError, match=told):
        load_strategy("lora", settings)
