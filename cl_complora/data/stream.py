"""A scenario's data made concrete: classes resolved, shots drawn, label spaces declared, images in memory."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.loading import Located
from ..config.scenario import DEFAULT_PROMPTS, Augmentation, Scenario, Task, ZeroShotSet
from ..errors import UserError
from ..files import write_text
from .labels import LabelSpace
from .sources import Item, Source, open_source

if TYPE_CHECKING:
    from torch import Tensor

    from .pixels import Pixels


@dataclass(frozen=True)
class Plan:
    """Which images a task uses and what they are called; no pixel loaded yet.

    Attributes:
        name: the task's or zero-shot set's name.
        class_names: its classes in label order.
        prompts: templates.
        train, validation, test: items whose label counts within ``class_names``.
        shots: training images per class, or None where all are used.
        augment: what training images may undergo.
        source: where to load from.
    """

    name: str
    class_names: tuple[str, ...]
    prompts: tuple[str, ...]
    train: tuple[Item, ...]
    validation: tuple[Item, ...]
    test: tuple[Item, ...]
    shots: int | None
    augment: Augmentation
    source: Source

    def manifest(self) -> list[dict]:
        """Every chosen image as ``{"split", "class", "key"}``, with ``"bytes"`` where it is a file."""
        parts = (("train", self.train), ("validation", self.validation), ("test", self.test))
        return [
            {"split": split, "class": self.class_names[item.label], "key": item.key}
            | ({} if item.size is None else {"bytes": item.size})
            for split, part in parts
            for item in part
        ]

    def sha256(self) -> str:
        """Fingerprint of the chosen images and their names."""
        return hashlib.sha256(json.dumps(self.manifest(), ensure_ascii=False).encode()).hexdigest()


@dataclass
class Images:
    """Decoded images and their labels: ``N × 3 × H × W`` uint8 and ``(N,)`` int64."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass
class TaskData:
    """One task ready to train and test.

    Attributes:
        name: task name.
        index: position in the stream, from 0.
        space: label space that its test images are classified in.
        train_space: label space that its training loss contrasts (a prefix of ``space`` or ``space`` itself).
        train, validation, test: images, labels within ``space``.
        augment: what training images may undergo.
        plan: where it all came from.
    """

    name: str
    index: int
    space: LabelSpace
    train_space: LabelSpace
    train: Images
    validation: Images
    test: Images
    augment: Augmentation
    plan: Plan


@dataclass
class StreamData:
    """All tasks and the zero-shot sets (name → images and label space)."""

    tasks: list[TaskData]
    zero_shot: dict[str, tuple[Images, LabelSpace]]


@dataclass(frozen=True)
class Plans:
    """The plans of a whole scenario for one seed."""

    tasks: tuple[Plan, ...]
    zero_shot: tuple[Plan, ...]


def plan(located: Located[Scenario], seed: int) -> Plans:
    """Resolve classes and draw shots; loads no pixels, so it also serves as the check of a scenario.

    Raises:
        UserError: for a missing folder, an unknown class, more shots than images, differing domain classes…
    """
    scenario, opened, faults = located.value, {}, []
    plans: dict[str, list[Plan]] = {"tasks": [], "zero_shot": []}
    for section, entries in (("tasks", scenario.tasks), ("zero_shot", scenario.zero_shot)):
        for position, entry in enumerate(entries):
            path = (section, position)
            try:
                if entry.source not in opened:
                    opened[entry.source] = _open(located, entry, (*path, "source"))
                maker = _plan_task if isinstance(entry, Task) else _plan_zero_shot
                plans[section].append(maker(located, entry, opened[entry.source], seed, path))
            except UserError as error:
                faults += error.messages
    if faults:
        raise UserError(faults[0], tuple(dict.fromkeys(faults[1:])))
    if scenario.protocol == "domain-incremental":
        _check_same_classes(located, plans["tasks"])
    return Plans(tuple(plans["tasks"]), tuple(plans["zero_shot"]))


def _open(located: Located[Scenario], entry: Task | ZeroShotSet, path: tuple) -> Source:
    try:
        source = open_source(entry.source, located.folder)
    except UserError as error:
        raise UserError(located.fault(path, error.messages[0])) from None
    except OSError as error:
        raise UserError(located.fault(path, f"cannot be read: {error.strerror or error}")) from None
    names = source.class_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(located.fault(path, f"two classes are both called {twice!r}"))
    return source


def _classes(located: Located[Scenario], task: Task, source: Source, path: tuple) -> list[int]:
    known = {name: label for label, name in enumerate(source.class_names)}
    if task.classes is not None:
        unknown = [name for name in task.classes if name not in known]
        if unknown:
            raise UserError(
                located.fault((*path, "classes"), f"no class {unknown[0]!r}; there are {_some(source.class_names)}")
            )
        return [known[name] for name in task.classes]
    if task.class_range is not None:
        first, end = task.class_range
        if end > len(source.class_names):
            limit = f"ends at {end}, but the source has {len(source.class_names)} classes"
            raise UserError(located.fault((*path, "class_range"), limit))
        return list(range(first, end))
    return list(range(len(source.class_names)))


def _plan_task(located: Located[Scenario], task: Task, source: Source, seed: int, path: tuple) -> Plan:
    scenario = located.value
    chosen = _classes(located, task, source, path)
    shots, validation_shots = scenario.shots_of(task), scenario.validation_shots
    pools = _by_class(source.items("train"), chosen)
    train: list[Item] = []
    validation: list[Item] = []
    for label, pool in enumerate(pools):
        needed = (shots or 1) + validation_shots
        if len(pool) < needed:
            name = source.class_names[chosen[label]]
            wanted = f"{shots or 1} shots" + (f" and {validation_shots} for validation" if validation_shots else "")
            key = (*path, "shots") if task.shots is not None else ("shots",)
            raise UserError(
                located.fault(
                    key, f"{wanted} a class, but class {name!r} of task '{task.name}' has {len(pool)} training images"
                )
            )
        # A generator of its own for every class: adding a class or a task changes no other class's draw.
        order = random.Random(f"{seed}/{task.name}/{source.class_names[chosen[label]]}").sample(pool, len(pool))
        cut = shots if shots is not None else len(pool) - validation_shots
        train += order[:cut]
        validation += order[cut : cut + validation_shots]
    test = _spread(_by_class(source.items("test"), chosen), task.test_limit or scenario.test_limit)
    if not test:
        raise UserError(located.fault((*path, "source"), f"task '{task.name}' has no test images"))
    return Plan(
        name=task.name,
        class_names=tuple(source.class_names[c] for c in chosen),
        prompts=tuple(task.prompts or (_own_prompts(scenario, source))),
        train=tuple(train),
        validation=tuple(validation),
        test=tuple(test),
        shots=shots,
        augment=task.augment or scenario.augment,
        source=source,
    )


def _plan_zero_shot(located: Located[Scenario], entry: ZeroShotSet, source: Source, seed: int, path: tuple) -> Plan:
    test = _spread(_by_class(source.items("test"), range(len(source.class_names))), entry.images)
    if not test:
        raise UserError(located.fault((*path, "source"), f"zero-shot set '{entry.name}' has no test images"))
    return Plan(
        name=entry.name,
        class_names=tuple(source.class_names),
        prompts=tuple(entry.prompts or _own_prompts(located.value, source)),
        train=(),
        validation=(),
        test=tuple(test),
        shots=0,
        augment=located.value.augment,
        source=source,
    )


def _own_prompts(scenario: Scenario, source: Source) -> Sequence[str]:
    # A source that comes with prompts knows its images better than a default that nobody wrote.
    return scenario.prompts if scenario.prompts != DEFAULT_PROMPTS or not source.prompts else source.prompts


def _by_class(items: Sequence[Item], chosen: Sequence[int]) -> list[list[Item]]:
    local = {label: index for index, label in enumerate(chosen)}
    pools: list[list[Item]] = [[] for _ in chosen]
    for item in items:
        if item.label in local:
            pools[local[item.label]].append(replace(item, label=local[item.label]))
    return pools


def _spread(pools: list[list[Item]], limit: int | None) -> list[Item]:
    """At most ``limit`` items, taken in rounds over the classes from a fixed shuffle (the same for every seed)."""
    if limit is None or limit >= sum(map(len, pools)):
        return [item for pool in pools for item in pool]
    shuffled = [random.Random(f"test/{label}").sample(pool, len(pool)) for label, pool in enumerate(pools)]
    rounds = [pool[depth] for depth in range(max(map(len, shuffled))) for pool in shuffled if depth < len(pool)]
    return sorted(rounds[:limit], key=lambda item: (item.label, item.key))


def _check_same_classes(located: Located[Scenario], plans: Sequence[Plan]) -> None:
    for position, other in enumerate(plans[1:], start=1):
        if other.class_names != plans[0].class_names:
            differing = sorted(set(other.class_names) ^ set(plans[0].class_names)) or ["their order"]
            raise UserError(
                located.fault(
                    ("tasks", position),
                    f"domain-incremental tasks share their classes; '{other.name}' and '{plans[0].name}' differ in "
                    f"{_some(differing)}",
                )
            )


def _some(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def load(plans: Plans, protocol: str, pixels: Pixels, loss_classes: str = "seen") -> StreamData:
    """Load the planned images and declare the label spaces of the protocol.

    Args:
        plans: from :func:`plan`.
        protocol: the scenario's.
        pixels: resize and crop of the model.
        loss_classes: ``seen`` or ``task``, the classes that a training loss contrasts (class-incremental only).
    """
    own = [LabelSpace.from_templates(p.class_names, p.prompts) for p in plans.tasks]
    seen: list[LabelSpace] = []
    for space in own:
        seen.append(seen[-1].joined(space) if seen else space)
    tasks = []
    for index, task_plan in enumerate(plans.tasks):
        joint = protocol == "class-incremental"
        space = seen[-1] if joint else own[index]
        position = [space.class_names.index(name) for name in task_plan.class_names]
        train_space = space
        if joint:
            # Joint label spaces grow at the end, so a label means the same class in every prefix.
            train_space = _prefix(space, len(seen[index]))
        train_position = position
        if joint and loss_classes == "task":
            train_space, train_position = own[index], list(range(len(position)))
        parts = {
            name: _images(task_plan.source, items, pixels, where)
            for name, items, where in (
                ("train", task_plan.train, train_position),
                ("validation", task_plan.validation, position),
                ("test", task_plan.test, position),
            )
        }
        tasks.append(
            TaskData(task_plan.name, index, space, train_space, augment=task_plan.augment, plan=task_plan, **parts)
        )
    zero_shot = {
        p.name: (
            _images(p.source, p.test, pixels, range(len(p.class_names))),
            LabelSpace.from_templates(p.class_names, p.prompts),
        )
        for p in plans.zero_shot
    }
    return StreamData(tasks, zero_shot)


def _prefix(space: LabelSpace, classes: int) -> LabelSpace:
    return type(space)(space.class_names[:classes], space.prompts[:classes])


def _images(source: Source, items: Sequence[Item], pixels: Pixels, position: Sequence[int]) -> Images:
    import torch

    if not items:
        return Images(torch.empty(0, 3, *pixels.size, dtype=torch.uint8), torch.empty(0, dtype=torch.long))
    labels = torch.tensor([position[item.label] for item in items])
    return Images(source.load(items, pixels), labels)


def write_manifest(path: Path, chosen: Plan) -> None:
    """Write a plan's images as JSON lines, one per image."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen.manifest()))
