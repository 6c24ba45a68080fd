"""Parts of a strategy that beside others, or on a stream, would do nothing or something else."""

from __future__ import annotations

import pytest

from builders.commands import cli
from cl_complora.config import load_strategy
from cl_complora.config.parts_together import of_earlier_tasks
from cl_complora.errors import UserError

BUDGET = "adapter.between={kind: budget, warmup: 0, final: 0}"


@pytest.mark.parametrize(
    ("name", "changed", "told"),
    [
        (
            "sdlora",
            ["regularisers=[{kind: orthogonal}]"],
            "orthogonal does not go with adapter.between.kind: directions",
        ),
        ("prilora", ["training.steps=3"], "adapter.pruning.every: must be at most training.steps (3)"),
        ("adalora", [BUDGET, "training.steps=3"], "between.every: must be at most training.steps (3)"),
        (
            "xgblora",
            ["training.steps=9"],
            "between.steps: must be at most training.steps (9), or the first booster is not finished",
        ),
        ("adalora", [BUDGET, "training.steps=auto", "training.bounds=[4, 9]"], "training.bounds (4)"),
        (
            "xgblora",
            ["adapter.pruning={grow_back: false}"],
            "false does not go with between.kind: boosters",
        ),
    ],
)
def test_parts_that_would_not_do_what_they_say_are_refused(name, changed, told):
    with pytest.raises(UserError) as refused:
        load_strategy(name, changed)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("lora", ["regularisers=[{kind: orthogonal}]"]),
        ("prilora", ["training.steps=10"]),
        ("adalora", ["training.steps=3"]),  # the choice at the beginning of the end remains
        ("adalora", [BUDGET, "training.steps=5"]),
        ("xgblora", ["adapter.pruning={grow_back: true}"]),
    ],
)
def test_beside_them_what_works_goes_on_working(name, changed):
    load_strategy(name, changed)


def test_what_is_of_earlier_tasks_alone():
    for name, parts in (
        ("lora+ewc", ["ewc"]),
        ("complora", ["lwf", "updates in adapter.subspace.protect"]),
        ("zscl", []),
        ("zeroshot", []),
    ):
        value = load_strategy(name).value
        assert of_earlier_tasks(value.adapter, value.regularisers) == parts, name
    norms = load_strategy("lora", ["regularisers=[{kind: orthogonal, norm: 1.0}]"]).value
    assert of_earlier_tasks(norms.adapter, norms.regularisers) == []


@pytest.mark.parametrize(
    ("words", "notes"),
    [
        (["embedded-styles", "lwf"], ["lwf has no effect on a domain-incremental stream"]),
        (
            ["embedded", "lwf", "--set", "training.stream=cumulative"],
            ["lwf has no effect with training.stream: cumulative"],
        ),
        (
            ["embedded", "replay", "lora+ewc", "--set", "independent=true"],
            ["memory has no effect on independent", "ewc has no effect on independent tasks"],
        ),
        (["embedded", "lwf", "replay", "lora+ewc"], []),
        (["embedded-classes", "lwf"], []),
    ],
)
def test_what_does_nothing_on_a_stream_is_told(words, notes, monkeypatch, capsys):
    code, out, _ = cli(monkeypatch, capsys, "check", *words)
    told = [line for line in out.splitlines() if "no effect" in line]
    assert code == 0 and len(told) == len(notes), out
    assert all(note in line for note, line in zip(notes, told, strict=True))
