"""How it is told that a run was made with other settings."""

from __future__ import annotations

import pytest

from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.run.stream import run
from cl_complora.store.differences import differences, told_differences

BEFORE = {
    "scenario": {"shots": 3, "tasks": [{"name": "a"}, {"name": "b"}], "name": "s"},
    "strategy": {"head": None, "optimiser": {"lr": 1e-3, "name": "adamw"}, "training": {"compile": False}},
    "splits": {"a": "0123", "b": "4567"},
}


def told(*now: tuple[str, object]) -> str:
    changed = {section: dict(of_it) for section, of_it in BEFORE.items()}
    for key, value in now:
        section, _, name = key.partition(".")
        changed[section][name] = value
    return told_differences(list(differences(BEFORE, changed)))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ([("scenario.shots", 2)], "this run was made with scenario.shots = 3, now it is 2"),
        (
            [("strategy.training", {"compile": True}), ("scenario.name", "t"), ("splits.a", "89ab")],
            "this run was made with scenario.name = 's', now it is 't'; with strategy.training.compile ="
            " false, now it is true",
        ),
        (
            [("strategy.head", {"kind": "linear", "lr": 0.1})],
            "this run was made with strategy.head = nothing, now it is {kind: 'linear', lr: 0.1}",
        ),
        (
            [("scenario.tasks", [{"name": "a"}])],
            "this run was made with scenario.tasks = a list of 2, now it is a list of 1",
        ),
        (
            [("scenario.tasks", [{"name": "a"}, {"name": "c"}])],
            "this run was made with scenario.tasks[1].name = 'b', now it is 'c'",
        ),
        (
            [("splits.a", "89ab"), ("splits.b", "cdef")],
            "the pictures of 'a', 'b', or their division, are others than when this run was made",
        ),
    ],
)
def test_differences_are_told_as_a_file_has_them(now, expected):
    assert told(*now) == expected


def test_of_many_differences_some_are_told_and_the_others_counted():
    said = told(*((f"scenario.key{number}", number) for number in range(6)))
    assert said.count("now it is") == 4 and said.endswith("; and 2 more that differ")


def test_a_run_tells_all_that_differs(tiny_scenario, tmp_path):
    run(load_scenario(str(tiny_scenario)), load_strategy("lora", ["training.steps=1"]), out=tmp_path)
    other = load_scenario(str(tiny_scenario), ["shots=2", "scenario.name=tiny"])
    with pytest.raises(UserError) as refused:
        run(other, load_strategy("lora", ["training.steps=2"]), out=tmp_path)
    (line,) = refused.value.messages
    pairs = "scenario.shots = 3, now it is 2; with strategy.training.steps = 1, now it is 2; use --fresh"
    assert f"this run was made with {pairs}" in line
