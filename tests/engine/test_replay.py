"""What the memory of earlier tasks holds: so many images of every class, or as many in all drawn evenly from
the task, of each of three tasks, and the same ones whenever they are chosen."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from builders.steps import OTHER, SPACE
from cl_complora.config.scenario import Augmentation
from cl_complora.config.strategy import Memory
from cl_complora.config.training import Training
from cl_complora.data.tasks import Images, TaskData
from cl_complora.engine import replay
from cl_complora.engine.experience import ClipExperience
from cl_complora.engine.replay import ReplayPlugin

# Images of the three classes of every task.
COUNTS = ((20, 6, 3), (4, 4, 4), (2, 30, 10))


def task(index: int, counts: tuple[int, ...]) -> TaskData:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(index))]
    data = Images(torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8), labels)
    return TaskData(f"t{index}", index, SPACE, SPACE, data, data, data, Augmentation(), None)


TASKS = [task(index, counts) for index, counts in enumerate(COUNTS)]


class Step:
    """What the memory's loss reads of a strategy in a step; the model knows nothing."""

    device, training_settings = "cpu", Training()

    def __init__(self, parts: list[TaskData]) -> None:
        self.experience = ClipExperience(parts, len(parts))
        self.loss, self.asked, self.model = torch.zeros(()), [], self
        self.clip = SimpleNamespace(logit_scale=torch.zeros(()))

    def of_the_step(self, space):
        return space

    def __call__(self, images, spaces, ids):
        self.asked.append((len(spaces), ids.unique().tolist()))
        return torch.zeros(len(images), len(spaces[0]))


class Trained:
    """What the memory reads of a strategy after an experience."""

    def __init__(self, *tasks: TaskData) -> None:
        self.experience = ClipExperience(tasks, tasks[-1].index)


def memory(policy: str, per_class: int, seed: int = 0, tasks=TASKS) -> ReplayPlugin:
    """After these tasks, one by one."""
    plugin = ReplayPlugin(Memory(kind="replay", policy=policy, per_class=per_class), seed)
    for one in tasks:
        plugin.after_training_exp(Trained(one))
    return plugin


def held(plugin: ReplayPlugin) -> list[list[int]]:
    """Images of every class, task by task."""
    return [one.train.labels[places].bincount(minlength=3).tolist() for one, places in plugin.kept]


@pytest.mark.parametrize(
    ("per_class", "wanted"),
    [(1, [[1, 1, 1]] * 3), (2, [[2, 2, 2]] * 3), (4, [[4, 4, 3], [4, 4, 4], [2, 4, 4]])],
)
def test_a_balanced_memory_holds_as_many_of_every_class_of_every_task(per_class, wanted):
    """All of those that have fewer."""
    plugin = memory("class-balanced", per_class)
    assert held(plugin) == wanted
    assert all(len(set(places.tolist())) == len(places) for _, places in plugin.kept)


@pytest.mark.parametrize("per_class", [1, 2, 5])
def test_a_reservoir_holds_as_many_in_all_and_no_image_twice(per_class):
    plugin = memory("reservoir", per_class)
    for (one, places), counts in zip(plugin.kept, COUNTS, strict=True):
        assert len(set(places.tolist())) == len(places) == min(3 * per_class, sum(counts)), one.name


def test_a_reservoir_is_a_uniform_sample_of_the_task():
    """Over many seeds every class has its share of the task, not of the classes."""
    found = [held(memory("reservoir", 2, seed, TASKS[:1]))[0] for seed in range(150)]
    mean = torch.tensor(found).double().mean(0)
    assert mean.tolist() == pytest.approx([6 * 20 / 29, 6 * 6 / 29, 6 * 3 / 29], abs=0.3)


@pytest.mark.parametrize("policy", ["class-balanced", "reservoir"])
def test_later_tasks_take_nothing_from_what_is_kept_of_earlier_ones(policy):
    first = memory(policy, 2, tasks=TASKS[:1]).kept[0][1]
    plugin = memory(policy, 2)
    assert [one.name for one, _ in plugin.kept] == ["t0", "t1", "t2"]
    assert torch.equal(plugin.kept[0][1], first)
    plugin.after_training_exp(Trained(*TASKS))  # as where earlier tasks are trained on again
    assert len(plugin.kept) == 3


@pytest.mark.parametrize("policy", ["class-balanced", "reservoir"])
def test_what_is_kept_hangs_on_the_seed_and_the_task_alone(policy):
    kept = [places.tolist() for _, places in memory(policy, 2).kept]
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    again = memory(policy, 2, tasks=TASKS[::-1])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [places.tolist() for _, places in again.kept][::-1] == kept
    others = [[places.tolist() for _, places in memory(policy, 2, seed).kept] for seed in (1, 2)]
    assert kept not in others


def test_tasks_that_share_their_classes_compete_in_one_space(monkeypatch):
    seen = []
    monkeypatch.setattr(replay, "training_loss", lambda loss, batch: seen.append(batch) or torch.zeros(()))
    step = Step([TASKS[0]])
    plugin = memory("class-balanced", 2)
    plugin.before_backward(step)
    assert step.asked == [(1, [0])]  # the texts are read once, whatever tasks were drawn
    assert [counts.tolist() for counts in seen[0].counts] == [[6, 6, 6]]
    other = replace(TASKS[1], space=OTHER, train_space=OTHER)
    plugin = memory("class-balanced", 2, tasks=[TASKS[0], other])
    plugin.before_backward(step)
    assert step.asked[-1] == (2, [0, 1]) and [len(counts) for counts in seen[1].counts] == [3, len(OTHER)]
