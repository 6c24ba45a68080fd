"""Images by class, and few of them spread over the classes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from .items import Item


def by_class(items: Sequence[Item], chosen: Sequence[int]) -> list[list[Item]]:
    local = {label: index for index, label in enumerate(chosen)}
    pools: list[list[Item]] = [[] for _ in chosen]
    for item in items:
        place = local.get(item.label)
        if place is not None:  # most sources are taken whole, and a copy of a million items takes seconds
            pools[place].append(item if place == item.label else replace(item, label=place))
    return pools


def spread(pools: list[list[Item]], limit: int | None) -> list[Item]:
    """At most ``limit`` items, taken in rounds over the classes from a fixed shuffle (the same for every
    seed)."""
    if limit is None or limit >= sum(map(len, pools)):
        return [item for pool in pools for item in pool]
    shuffled = [random.Random(f"test/{label}").sample(pool, len(pool)) for label, pool in enumerate(pools)]
    rounds = [
        pool[depth] for depth in range(max(map(len, shuffled))) for pool in shuffled if depth < len(pool)
    ]
    return sorted(rounds[:limit], key=lambda item: (item.label, item.key))
