"""One matrix over all shipped strategies: train → merge → save → stop inside a task → resume to the bit →
export → equal logits → a task left out.

The short form does all of this on the protocol whose label space grows. What it leaves out, the long form
has (``make test-faults``): other protocols of strategies whose parts others have, and stops where nothing but
what others have can be lost.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
from safetensors.torch import load_file

from builders.adapters import quick_adapter
from builders.edits import AT_ONCE, HELD_ON, HOLDING, ONE_HEAD, left_out
from builders.heads import quick_head
from builders.images import COLOURS
from builders.interruptions import AfterFirstTask, Said, Stop, ask_after, same_bits
from builders.models import TINY
from builders.places import LONG
from builders.runs import without_timings
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.evaluate import accuracy
from cl_complora.clip.model import LoadedClip, load_clip
from cl_complora.clip.untouched_tower import UntouchedTower
from cl_complora.config import Scenario, Strategy, load_scenario, load_strategy
from cl_complora.config.adaptation import Adapter
from cl_complora.config.catalog import shipped
from cl_complora.config.heads import IN_WEIGHTS
from cl_complora.config.loading import Located
from cl_complora.data.planning import plan
from cl_complora.data.tasks import StreamData, load
from cl_complora.engine import replay
from cl_complora.engine.replay import contrasted_with
from cl_complora.progress import Quiet
from cl_complora.run.signals import Stopped
from cl_complora.run.stream import run
from cl_complora.store.deltas import load_delta
from cl_complora.store.folder import RunDir
from cl_complora.store.head_files import load_head

QUICK = ["training.steps=3", "training.batch_size=4"]
# What stands between factors and treats every matrix, or all together, alike, whatever block it is of.
ALIKE_IN_BLOCKS = {None, "budget", "directions", "experts", "gates"}
# One strategy for every kind of update to show: low-rank, dense, rows, of all tasks at once, none.
DRAWN = ("complora", "finetune", "tokens", "joint", "zeroshot")
PROTOCOLS = ("task-incremental", "class-incremental", "domain-incremental")


def small(name: str, adapter: Adapter) -> list[str]:
    """Settings of low-rank factors: few, and in the short form of the towers' last blocks alone, but for two
    that show what all blocks do and for whatever tells one block from another."""
    if adapter.kind != "lowrank":
        return []
    differ = adapter.depth_scale or adapter.rank_last or adapter.between_kind not in ALIKE_IN_BLOCKS
    all_blocks = LONG or differ or name in ("complora", "lora")
    return ["adapter.rank=2"] + ([] if all_blocks else ["adapter.layers=[-1]"])


@functools.cache
def strategy(name: str):
    located = load_strategy(name)
    overrides = small(name, located.value.adapter)
    overrides += QUICK if located.value.adapter.kind != "none" else []
    overrides += [
        f"regularisers.{i}.samples=4"
        for i, part in enumerate(located.value.regularisers)
        if part.kind == "ewc"
    ]
    if located.value.training.average_every is not None:
        overrides.append("training.average_every=1")
    overrides += quick_head(located.value.head) + quick_adapter(located.value.adapter)
    return load_strategy(name, overrides)


@functools.cache
def scenario(file: Path, protocol: str) -> Located[Scenario]:
    overrides = [f"protocol={protocol}"]
    if protocol == "domain-incremental":
        overrides += ["tasks.1.classes=[red, yellow]"]
    return load_scenario(str(file), overrides)


@functools.cache
def seen_by(file: Path, protocol: str) -> tuple[LoadedClip, StreamData]:
    """The model of a scenario, for what is around its weights, and the images as it sees them."""
    located = scenario(file, protocol)
    loaded = load_clip(located.value.model)
    return loaded, load(plan(located, 0), protocol, loaded.pixels)


ABOUT = {"name", "description", "about", "sweep"}
# What may differ in a strategy that only says which low-rank update is trained, and how.
UPDATE = ABOUT | {"adapter", "optimiser", "schedule", "training"}

# On all protocols in the short form: for every part that looks at labels, label spaces, earlier images or a
# stream of its own, one that has it. A strategy with another such part joins them by itself.
EVERYWHERE = (
    "complora",
    "joint",
    "cumulative",
    "replay",
    "ewc",
    "lwf",
    "codyra",
    "lora+text-head",
    "rail",
    "rada",
    "lfa",
    "tip-adapter-f",
)
# Parts to which all protocols are the same: they look at weights, or at pictures of any class.
BLIND = {"l2-init", "orthogonal", "orthonormal", "apart", "crops", "reference", "sentences"}
# Parts that get from a protocol what another gets: the class texts of the task that is learned; the kept
# shots of all tasks, through FittingToAll (on own label spaces test_head_runs has every head).
LIKE = dict.fromkeys(("similarities", "consistency", "diversity", "spectrum", "regions"), "text-to-image")
LIKE |= dict.fromkeys(("lp++", "nearest-mean", "linear-probe"), "ridge")


def update_alone(value: Strategy) -> bool:
    return (
        value.name != "complora"
        and value.adapter.kind == "lowrank"
        and value.training.stream == "sequential"
        and set(value.model_dump(exclude_defaults=True)) <= UPDATE
    )


def looking(value: Strategy) -> set[str]:
    """Parts of a strategy to which the protocol may matter."""
    parts = [part.kind for part in (*value.regularisers, value.memory, value.head) if part is not None]
    kinds = {LIKE.get(kind, kind) for kind in parts} - BLIND
    return kinds | {value.adapter.kind, value.training.stream, *filter(None, [value.plugin])}


def cases() -> list[tuple[str, str]]:
    """Every strategy on the protocol whose label space grows, which is the hardest to go on with.

    On all protocols whatever looks at labels, earlier images or a stream of its own (losses, memories, joint
    training, dense updates): to a low-rank update alone every protocol is the same. In the short form one for
    each of these parts.
    """
    values = {name: load_strategy(name).value for name in sorted(shipped("strategy"))}
    known = set().union(*(looking(values[name]) for name in EVERYWHERE))
    found = []
    for name, value in values.items():
        chosen = LONG or name in EVERYWHERE or not looking(value) <= known
        protocols = PROTOCOLS if chosen else PROTOCOLS[:2] if name in DRAWN else PROTOCOLS[1:2]
        found += [(name, one) for one in (PROTOCOLS[1:2] if update_alone(value) else protocols)]
    return found


# Not stopped within a task in the short form: they have no part that could lose something there and that no
# other strategy has, as is made sure of below. A strategy that does not stand here is always stopped.
NOT_STOPPED = {
    "balanced-softmax",
    "class-weighted",
    "complora-balanced",
    "complora-plain",
    "complora-plain-muon",
    "complora-protected",
    "focal",
    "lade",
    "ldam",
    "lora-cliplora",
    "lora-muon",
    "lora-normmatched",
    "lora-wd",
    "milora",
    "pissa",
}
# Settings of what has no state within a task (losses of a batch and their classes, what is done after the
# last step), or whose state test_inside and test_optimisers save for every kind.
WITHOUT_STATE = ("training.loss", "training.classes", "adapter.merge", "optimiser.")


def settings_of(part: Any, path: str = "") -> Iterator[str]:
    """Key paths of settings, with the words that they are set to; numbers do not matter."""
    if isinstance(part, dict) and part:
        for key, value in part.items():
            yield from settings_of(value, f"{path}.{key}" if path else key)
    elif isinstance(part, list) and part:
        for value in part:
            yield from settings_of(value, path)
    else:
        yield f"{path}={part}" if isinstance(part, str) else path


def test_whoever_is_not_stopped_has_no_part_of_its_own():
    made_of = {
        name: set(settings_of(load_strategy(name).value.model_dump(exclude_defaults=True, exclude=ABOUT)))
        for name in shipped("strategy")
    }
    stopped = set().union(*(parts for name, parts in made_of.items() if name not in NOT_STOPPED))
    for name in NOT_STOPPED:
        assert [one for one in made_of[name] - stopped if not one.startswith(WITHOUT_STATE)] == [], name


def heads_after(folder: RunDir, tasks: list[str], shared: bool) -> dict:
    """What answers for every task; nothing where its texts do."""
    stored = {
        task: load_head(folder.head(index, task))
        for index, task in enumerate(tasks)
        if folder.head(index, task).exists()
    }
    return dict.fromkeys(tasks, stored[tasks[-1]]) if stored and shared else stored


def weights_after(folder: RunDir, tasks: list[str], start: dict) -> dict:
    for index, task in enumerate(tasks):
        load_delta(folder.delta(index, task)).add_to(start)
    return start


def the_same_after_a_stop(located, name: str, whole, out, monkeypatch) -> None:
    """Stopped within the second task, where regularisers, memories and teachers are at work: the same bits.

    Heads are fitted within seconds, and anew by a run that was stopped there: what takes no steps is stopped
    between its tasks instead.
    """
    trains = strategy(name).value.adapter.kind != "none"
    if trains:
        ask_after(monkeypatch, 5)  # three steps in the first task, two in the second
    progress = Quiet() if trains else AfterFirstTask()
    with pytest.raises(Stopped if trains else Stop):
        run(located, strategy(name), out=out, progress=progress, analysis=False)
    said = Said()
    resumed = run(located, strategy(name), out=out, progress=said, analysis=False)
    joint = strategy(name).value.training.stream == "joint"
    assert resumed.reused == (0 if joint else 1) and ("going on inside the task" in said.lines) == trains
    assert without_timings(resumed.results) == without_timings(whole.results)
    assert same_bits(resumed.folder, whole.folder)
    assert not list((resumed.folder / "state").glob("inside-*"))


@pytest.mark.parametrize(("name", "protocol"), cases())
def test_every_strategy_on_the_protocols(
    name, protocol, tmp_path, tiny_scenario, tiny_files, request, monkeypatch
):
    shown = protocol == "task-incremental" and name in DRAWN
    if shown:
        request.getfixturevalue("drawn")
    located = scenario(tiny_scenario, protocol)
    whole = run(located, strategy(name), out=tmp_path / "whole", analysis=shown)
    assert whole.results["status"] == "done"

    if protocol == "class-incremental" and (LONG or name not in NOT_STOPPED):
        the_same_after_a_stop(located, name, whole, tmp_path / "resumed", monkeypatch)

    # W_0 + Σ ΔW as open_clip's own class computes with it (test_export has the files) gives the accuracy that
    # the run measured.
    tasks = whole.results["tasks"]
    plain = open_clip.model.CLIP(**TINY).eval()
    pretrained = load_file(tiny_files[1])
    plain.load_state_dict(pretrained)
    untouched = UntouchedTower(plain)
    plain.load_state_dict(weights_after(RunDir(whole.folder), tasks, pretrained))
    loaded, data = seen_by(tiny_scenario, protocol)
    exported = ClipClassifier(plain, loaded.tokenizer, mean=loaded.mean, std=loaded.std)
    if getattr(strategy(name).value.head, "with_untouched", False):
        exported.untouched = untouched
    heads = heads_after(RunDir(whole.folder), tasks, protocol != "task-incremental")
    head = strategy(name).value.head
    assert bool(heads) == (head is not None and head.kind not in IN_WEIGHTS)
    row = [
        accuracy(exported, task.test.pixels, task.test.labels, task.space, head=heads.get(task.name))
        for task in data.tasks
    ]
    assert row == whole.results["accuracy"][-1]

    if protocol == "class-incremental":
        at_once, held_on = strategy(name).value.training.stream == "joint", name in HOLDING
        expected = AT_ONCE if at_once else HELD_ON if held_on else ONE_HEAD if heads else "exactly"
        assert left_out(whole.folder, "warm") == expected

    moved = [detail["delta_norm"] for detail in whole.results["tasks_detail"]]
    if name == "zeroshot":
        assert all(row == whole.results["accuracy"][0] for row in whole.results["accuracy"])
        assert moved == [0, 0]
    elif strategy(name).value.training.stream == "joint":
        assert moved[0] > 0 and not any(moved[1:])  # all of it happens in place of the first task
        assert whole.results["transfer"] is None
    elif strategy(name).value.adapter.kind == "none" and heads:
        assert moved == [0, 0]
    else:
        assert all(norm > 0 for norm in moved)


def test_class_incremental_shares_one_label_space_and_trains_on_what_was_seen(tiny_scenario):
    located = scenario(tiny_scenario, "class-incremental")
    pixels = load_clip(located.value.model).pixels
    first, second = load(plan(located, 0), "class-incremental", pixels).tasks
    assert first.space == second.space and set(first.space.class_names) == set(COLOURS)
    assert set(first.test.labels.tolist()) == {0, 1} and set(second.test.labels.tolist()) == {2, 3}
    assert [len(task.train_space) for task in (first, second)] == [2, 4]
    apart, _ = load(plan(located, 0), "class-incremental", pixels, "task").tasks
    assert len(apart.train_space) == 2


def test_replay_contrasts_old_images_with_all_classes_seen(tiny_scenario):
    located = scenario(tiny_scenario, "class-incremental")
    pixels = load_clip(located.value.model).pixels
    first, second = load(plan(located, 0), "class-incremental", pixels).tasks
    assert contrasted_with(first, second) == second.train_space
    for protocol, classes in (("task-incremental", "seen"), ("class-incremental", "task")):
        located = scenario(tiny_scenario, protocol)
        first, second = load(plan(located, 0), protocol, pixels, classes).tasks
        assert contrasted_with(first, second) == first.train_space


def test_replay_contrasts_with_the_latest_of_tasks_that_are_trained_together(
    tmp_path, tiny_scenario, monkeypatch
):
    asked = []

    def noted(task, current):
        asked.append((task.index, current.index))
        return contrasted_with(task, current)

    monkeypatch.setattr(replay, "contrasted_with", noted)
    located = scenario(tiny_scenario, "class-incremental")
    together = load_strategy("replay", [*QUICK, "training.stream=cumulative"])
    run(located, together, out=tmp_path / "runs", analysis=False)
    assert set(asked) == {(0, 1)}
