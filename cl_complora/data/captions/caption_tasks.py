"""Which pictures a task of captions trains and tests on; no pixel is loaded."""

from __future__ import annotations

import random

from ...config.loading import Located
from ...config.scenario import Scenario, Task
from ...errors import UserError
from ..items import Item, Source, items_at
from ..plans import Plan
from ..telling import counted
from .retrieval_sets import drawn_evenly


def plan_captions(located: Located[Scenario], task: Task, source: Source, seed: int, path: tuple) -> Plan:
    """Draw the training pictures for a seed; the test pictures are the same for every seed.

    Raises:
        UserError: for fewer than two pictures to train or to test on, and for more than there are.
    """
    scenario = located.value
    train, validation = _draw(located, task, items_at(located, path, source, "train"), seed, path)
    limit = task.test_limit or scenario.test_limit
    test = drawn_evenly(items_at(located, path, source, "test"), limit)
    if len(test) < 2:
        asked = task.test_limit is not None or (limit is not None and limit < 2)
        key = ("source",) if not asked else ("test_limit",) if task.test_limit is not None else ()
        at = (*path, *key) if key else ("test_limit",)
        problem = f"task '{task.name}' has {counted(len(test), 'test picture')}; retrieval needs two at least"
        raise UserError(located.fault(at, problem))
    if scenario.measure == "validation" and not validation:
        problem = f"task '{task.name}' has no validation pictures; validation_images sets some apart"
        raise UserError(located.fault((*path, "source"), problem))
    written = getattr(source, "source", source)  # also where broken pictures are left out
    return Plan(
        name=task.name,
        class_names=(),
        prompts=(),
        train=train,
        validation=validation,
        test=tuple(test),
        shots=None,
        augment=task.augment or scenario.augment,
        source=source,
        texts={item.key: written.texts(item) for item in (*train, *validation, *test)},
    )


def _draw(
    located: Located[Scenario], task: Task, pool: list[Item], seed: int, path: tuple
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    apart = task.validation_images or 0
    images = task.images or len(pool) - apart
    if images < 2 or images + apart > len(pool):
        wanted = f"{max(2, images)} training pictures" + (f" and {apart} for validation" if apart else "")
        key = next((k for k in ("images", "validation_images") if getattr(task, k) is not None), "source")
        problem = f"{wanted}, but the source of task '{task.name}' has {len(pool)}"
        raise UserError(located.fault((*path, key), problem))
    drawn = random.Random(f"{seed}/{task.name}").sample(range(len(pool)), images + apart)
    parts = (drawn[:images], drawn[images:])
    train, validation = (tuple(pool[place] for place in sorted(part)) for part in parts)
    return train, validation
