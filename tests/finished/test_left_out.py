"""A task left out or scaled: exactly, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from builders.commands import cli
from builders.edits import AT_ONCE, HELD_ON, HOLDING, ONE_HEAD, left_out
from cl_complora.config import Scenario, Strategy, load_scenario, load_strategy
from cl_complora.config.catalog import shipped
from cl_complora.config.heads import IN_WEIGHTS
from cl_complora.errors import UserError
from cl_complora.finished.states import find_state, open_run, refuse_inexact
from cl_complora.run.stream import run

BOTH = ("warm", "cold")
# What of a strategy file makes later updates hold a part of earlier ones, and what of it does not.
SD_LORA = "adapter.between={kind: directions}"
TOWARDS = "adapter.merge={kind: interpolate, weight: %s, towards: %s}"
QUICK = ["training.steps=2", "training.batch_size=4"]


def told(
    strategy: Strategy, scenario: Scenario, factors: float | dict[str, float], held: tuple[str, ...] = BOTH
) -> str | None:
    """Why a task of such a run cannot have the factor; of 'warm' where no task is named."""
    given = factors if isinstance(factors, dict) else {"warm": factors}
    try:
        refuse_inexact(Path("run"), {"strategy": strategy.model_dump()}, scenario, given, held)
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
        elif name in HOLDING:
            assert HELD_ON in why and "(cold)" in why and "--after warm" in why, name
        elif head and shares:
            assert ONE_HEAD in why and ("--curve warm" in why) == (value.adapter.kind != "none"), name
        else:
            assert why is None, name
        only_heads = head and value.adapter.kind == "none"
        whole = value.training.stream == "joint" or name in HOLDING
        assert bool(told(value, scenario, 0.5)) == (only_heads or whole), name


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ([SD_LORA], "adapter.between.kind: directions"),
        ([TOWARDS % (0.8, "pretrained")], "adapter.merge.towards: pretrained"),
        ([TOWARDS % (1.0, "pretrained")], None),
        ([TOWARDS % (0.8, "previous")], None),
        (["adapter.between={kind: gates}"], None),
    ],
)
def test_what_later_updates_hold_is_asked_of_the_settings(settings, named, tiny_scenario):
    scenario, value = load_scenario(str(tiny_scenario)).value, load_strategy("lora", settings).value
    for factor in (0.0, 0.5, 1.5):
        why = told(value, scenario, factor)
        assert why is None if named is None else HELD_ON in why and named in why
    assert told(value, scenario, 1.0) is None  # that is the run as it is
    # The last of a state is in no later update, nor is one whose later updates are all left out.
    assert told(value, scenario, {"cold": 0.0}) is None and told(value, scenario, 0.0, ("warm",)) is None
    assert told(value, scenario, {"warm": 0.5, "cold": 0.0}) is None
    assert bool(told(value, scenario, {"warm": 0.0, "cold": 0.5})) == (named is not None)


@pytest.fixture(scope="module")
def holding(tmp_path_factory, tiny_scenario):
    """Runs whose later updates hold a part of earlier ones, by what makes them so."""
    located, out = load_scenario(str(tiny_scenario)), tmp_path_factory.mktemp("holding")
    made = {
        "lengths": load_strategy("sdlora", QUICK),
        "interpolation": load_strategy("wise-ft", [*QUICK, "adapter.merge.towards=pretrained"]),
        "maps": load_strategy("lfa", ["head.steps=2"]),
    }
    return {kind: run(located, value, out=out / kind, analysis=False).folder for kind, value in made.items()}


@pytest.mark.parametrize("kind", ["lengths", "interpolation", "maps"])
def test_a_task_that_later_updates_hold_is_refused_and_the_last_is_left_out_exactly(
    kind, holding, tmp_path, monkeypatch, capsys
):
    folder = holding[kind]
    for words in (("--without", "warm"), ("--scale", "warm=0.5"), ("--curve", "warm"), ("--curve", "each")):
        code, _, err = cli(monkeypatch, capsys, "eval", folder, *words)
        assert code == 2 and "'warm' cannot be left out or scaled" in err, words
        assert "--after warm" in " ".join(err.split()), words
    assert not (folder / "curve.svg").exists()
    assert left_out(folder, "cold") == "exactly"
    before, without = (open_run(folder, after="1"), open_run(folder, scale={"cold": 0.0}))
    for one, other in zip(before.loaded.model.parameters(), without.loaded.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert find_state(folder, after="warm", scale={"warm": 0.0}).after == ["warm"]
    plot = tmp_path / "curve.svg"
    for words in (("--curve", "cold"), ("--curve", "warm", "--without", "cold")):
        code, out, err = cli(monkeypatch, capsys, "eval", folder, *words, "--factors", "0,1", "--plot", plot)
        assert code == 0 and f"along the update of '{words[1]}'" in out, err


def test_an_edited_state_is_exported_and_predicts(tiny_run, class_folders, tmp_path, monkeypatch, capsys):
    words = ("--without", "cold", "--scale", "warm=0.5")
    file = tmp_path / "edited.safetensors"
    code, _, err = cli(monkeypatch, capsys, "export", tiny_run.folder, "-o", file, *words)
    assert code == 0, err
    assert "after the tasks: 0.5 × warm." in file.with_suffix(".md").read_text()
    exported, edited = load_file(file), open_run(tiny_run.folder, scale={"cold": 0.0, "warm": 0.5})
    wanted, whole = edited.loaded.model.state_dict(), open_run(tiny_run.folder).loaded.model.state_dict()
    assert exported.keys() == wanted.keys()
    assert all(torch.equal(exported[key], wanted[key]) for key in wanted)
    assert not all(torch.equal(exported[key], whole[key]) for key in whole)
    shares = []
    for edit in ((), words):
        code, out, err = cli(
            monkeypatch, capsys, "predict", tiny_run.folder, class_folders / "test", "--json", *edit
        )
        assert code == 0, err
        shares.append(out)
    assert shares[0] != shares[1]
    nowhere = tmp_path / "no.safetensors"
    for command in (("export", tiny_run.folder, "-o", nowhere), ("predict", tiny_run.folder, file)):
        code, _, err = cli(monkeypatch, capsys, *command, "--without", "nothing")
        assert code == 2 and "nothing" in err and not nowhere.exists()


@pytest.mark.parametrize("words", [("--without", "cold"), ("--scale", "warm=0.5"), ("--curve", "warm")])
def test_tasks_learned_at_once_have_no_update_of_their_own(joint_run, words, monkeypatch, capsys):
    code, _, err = cli(monkeypatch, capsys, "eval", joint_run, *words)
    assert code == 2 and "so none has an update of its own" in err
    assert not (joint_run / "curve.svg").exists()


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
