"""One matrix over all shipped strategies: train → merge → save → stop inside a task → resume to the bit →
export → equal logits →
a task left out."""

from __future__ import annotations

import functools

import open_clip
import pytest
from safetensors.torch import load_file, save_file

from builders.adapters import quick_adapter
from builders.edits import AT_ONCE, HELD_ON, HOLDING, ONE_HEAD, left_out
from builders.heads import quick_head
from builders.images import COLOURS
from builders.interruptions import AfterFirstTask, Said, Stop, ask_after, same_bits
from builders.runs import without_timings
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.evaluate import accuracy
from cl_complora.clip.model import load_clip
from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.catalog import shipped
from cl_complora.config.heads import IN_WEIGHTS
from cl_complora.data.planning import plan
from cl_complora.data.tasks import load
from cl_complora.engine import replay
from cl_complora.engine.replay import contrasted_with
from cl_complora.progress import Quiet
from cl_complora.run.signals import Stopped
from cl_complora.run.stream import run
from cl_complora.store.deltas import load_delta
from cl_complora.store.folder import RunDir
from cl_complora.store.head_files import load_head

QUICK = ["training.steps=3", "training.batch_size=4"]
SMALL = {"lowrank": ["adapter.rank=2"], "full": [], "none": []}
# One strategy for every kind of update to show: low-rank, dense, rows, of all tasks at once, none.
DRAWN = ("complora", "finetune", "tokens", "joint", "zeroshot")
PROTOCOLS = ("task-incremental", "class-incremental", "domain-incremental")


@functools.cache
def strategy(name: str):
    located = load_strategy(name)
    overrides = SMALL[located.value.adapter.kind] + (QUICK if located.value.adapter.kind != "none" else [])
    overrides += [
        f"regularisers.{i}.samples=4"
        for i, part in enumerate(located.value.regularisers)
        if part.kind == "ewc"
    ]
    if located.value.training.average_every is not None:
        overrides.append("training.average_every=1")
    overrides += quick_head(located.value.head) + quick_adapter(located.value.adapter)
    return load_strategy(name, overrides)


def scenario(tmp_path, tiny_scenario, class_folders, protocol: str):
    overrides = [f"protocol={protocol}"]
    if protocol == "domain-incremental":
        overrides += ["tasks.1.classes=[red, yellow]"]
    return load_scenario(str(tiny_scenario), overrides)


# What may differ in a strategy that only says which low-rank update is trained, and how.
UPDATE = {"name", "description", "about", "adapter", "optimiser", "schedule", "training", "sweep"}


def cases() -> list[tuple[str, str]]:
    """Every strategy on the protocol whose label space grows, which is the hardest to go on with.

    On all protocols the default, and whatever looks at labels, earlier images or a stream of its own (losses,
    memories, joint training, dense updates): to a low-rank update alone every protocol is the same.
    """
    found = []
    for name in sorted(shipped("strategy")):
        value = load_strategy(name).value
        update_alone = (
            name != "complora"
            and value.adapter.kind == "lowrank"
            and value.training.stream == "sequential"
            and set(value.model_dump(exclude_defaults=True)) <= UPDATE
        )
        found += [(name, protocol) for protocol in (PROTOCOLS[1:2] if update_alone else PROTOCOLS)]
    return found


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
    name, protocol, tmp_path, tiny_scenario, class_folders, tiny_files, request, monkeypatch
):
    shown = protocol == "task-incremental" and name in DRAWN
    if shown:
        request.getfixturevalue("drawn")
    located = scenario(tmp_path, tiny_scenario, class_folders, protocol)
    whole = run(located, strategy(name), out=tmp_path / "whole", analysis=shown)
    assert whole.results["status"] == "done"

    if protocol == "class-incremental":
        the_same_after_a_stop(located, name, whole, tmp_path / "resumed", monkeypatch)

    # W_0 + Σ ΔW, exported as a plain open_clip checkpoint, gives the accuracy that the run measured.
    tasks = whole.results["tasks"]
    state = weights_after(RunDir(whole.folder), tasks, load_file(tiny_files[1]))
    save_file(state, tmp_path / "merged.safetensors")
    open_clip.add_model_config(tiny_files[0])
    plain = open_clip.create_model("tiny_clip", pretrained=str(tmp_path / "merged.safetensors")).eval()
    loaded = load_clip(located.value.model)
    exported = ClipClassifier(plain, loaded.tokenizer, mean=loaded.mean, std=loaded.std)
    data = load(plan(located, 0), protocol, loaded.pixels)
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
        assert all(row == whole.results["accuracy"][0] for row in whole.results["accuracy"]) and moved == [
            0,
            0,
        ]
    elif strategy(name).value.training.stream == "joint":
        assert moved[0] > 0 and not any(moved[1:])  # all of it happens in place of the first task
        assert whole.results["transfer"] is None
    elif strategy(name).value.adapter.kind == "none" and heads:
        assert moved == [0, 0]
    else:
        assert all(norm > 0 for norm in moved)


def test_class_incremental_shares_one_label_space_and_trains_on_what_was_seen(
    tmp_path, tiny_scenario, class_folders
):
    located = scenario(tmp_path, tiny_scenario, class_folders, "class-incremental")
    pixels = load_clip(located.value.model).pixels
    first, second = load(plan(located, 0), "class-incremental", pixels).tasks
    assert first.space == second.space and set(first.space.class_names) == set(COLOURS)
    assert set(first.test.labels.tolist()) == {0, 1} and set(second.test.labels.tolist()) == {2, 3}
    assert [len(task.train_space) for task in (first, second)] == [2, 4]
    apart, _ = load(plan(located, 0), "class-incremental", pixels, "task").tasks
    assert len(apart.train_space) == 2


def test_replay_contrasts_old_images_with_all_classes_seen(tmp_path, tiny_scenario, class_folders):
    located = scenario(tmp_path, tiny_scenario, class_folders, "class-incremental")
    pixels = load_clip(located.value.model).pixels
    first, second = load(plan(located, 0), "class-incremental", pixels).tasks
    assert contrasted_with(first, second) == second.train_space
    for protocol, classes in (("task-incremental", "seen"), ("class-incremental", "task")):
        located = scenario(tmp_path, tiny_scenario, class_folders, protocol)
        first, second = load(plan(located, 0), protocol, pixels, classes).tasks
        assert contrasted_with(first, second) == first.train_space


def test_replay_contrasts_with_the_latest_of_tasks_that_are_trained_together(
    tmp_path, tiny_scenario, class_folders, monkeypatch
):
    asked = []

    def noted(task, current):
        asked.append((task.index, current.index))
        return contrasted_with(task, current)

    monkeypatch.setattr(replay, "contrasted_with", noted)
    located = scenario(tmp_path, tiny_scenario, class_folders, "class-incremental")
    together = load_strategy("replay", [*QUICK, "training.stream=cumulative"])
    run(located, together, out=tmp_path / "runs", analysis=False)
    assert set(asked) == {(0, 1)}
