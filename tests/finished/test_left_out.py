"""A task left out or scaled: exactly, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.commands import cli
from builders.edits import REASONS, left_out
from cl_complora.config import Scenario, Strategy, load_scenario, load_strategy
from cl_complora.config.catalog import shipped
from cl_complora.config.heads import IN_WEIGHTS
from cl_complora.errors import UserError
from cl_complora.finished.states import refuse_inexact
from cl_complora.run.stream import run

AT_ONCE, ONE_HEAD = REASONS


def told(strategy: Strategy, scenario: Scenario, factor: float) -> str | None:
    """Why a task of such a run cannot have the factor."""
    try:
        refuse_inexact(Path("run"), {"strategy": strategy.model_dump()}, scenario, {"warm": factor})
    except UserError as refused:
        return str(refused)
    return None


@pytest.mark.parametrize("protocol", ["task-incremental", "class-incremental"])
def test_every_strategy_leaves_a_task_out_or_says_why_not(protocol, tiny_scenario):
    scenario = load_scenario(str(tiny_scenario), [f"protocol={protocol}"]).value
    shares = protocol == "class-incremental"
    for name in shipped("strategy"):
        value = load_strategy(name).value
        head = value.head is not None and value.head.kind not in IN_WEIGHTS
        why = told(value, scenario, 0.0)
        if value.training.stream == "joint":
            assert AT_ONCE in why and "--after 0" in why, name
        elif head and shares:
            assert ONE_HEAD in why and ("--curve warm" in why) == (value.adapter.kind != "none"), name
        else:
            assert why is None, name
        only_heads = head and value.adapter.kind == "none"
        assert bool(told(value, scenario, 0.5)) == (only_heads or value.training.stream == "joint"), name


@pytest.fixture(scope="module")
def joint(tmp_path_factory, tiny_scenario):
    quick = load_strategy("joint", ["training.steps=1", "training.batch_size=4"])
    out = tmp_path_factory.mktemp("joint")
    return run(load_scenario(str(tiny_scenario)), quick, out=out, analysis=False).folder


@pytest.mark.parametrize("words", [("--without", "cold"), ("--scale", "warm=0.5"), ("--curve", "warm")])
def test_tasks_learned_at_once_have_no_update_of_their_own(joint, words, monkeypatch, capsys):
    code, _, err = cli(monkeypatch, capsys, "eval", joint, *words)
    assert code == 2 and "so none has an update of its own" in err
    assert not (joint / "curve.svg").exists()


def test_a_head_of_its_own_is_left_out_and_a_head_of_all_is_not(tmp_path, tiny_scenario, monkeypatch, capsys):
    means = load_strategy("nearest-mean")
    apart = run(load_scenario(str(tiny_scenario)), means, out=tmp_path / "apart", analysis=False).folder
    assert left_out(apart, "warm") == "exactly"
    code, _, err = cli(monkeypatch, capsys, "eval", apart, "--scale", "warm=0.5")
    assert code == 2 and "only heads were trained, which --without leaves out" in err
    located = load_scenario(str(tiny_scenario), ["protocol=class-incremental"])
    shared = run(located, means, out=tmp_path / "shared", analysis=False).folder
    code, _, err = cli(monkeypatch, capsys, "eval", shared, "--without", "warm")
    assert code == 2 and "(protocol: class-incremental)" in err
