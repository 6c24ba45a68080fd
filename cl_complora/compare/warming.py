"""Decoded test images in the cache of this machine, before many runs would decode the same ones at once."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import Scenario
from ..config.loading import Located
from ..data.images.cache import cache_folder, load_cached
from ..data.planning import plan


def warm_pixels(scenarios: Sequence[Located[Scenario]], seeds: Sequence[int]) -> int:
    """Decode what the runs will measure on.

    Args:
        scenarios: of the runs.
        seeds: of the runs; they may draw different images.

    Returns:
        The number of sets that are in the cache now.
    """
    if cache_folder() is None:
        return 0
    from ..clip.model import load_clip

    sets = 0
    for scenario in scenarios:
        pixels = load_clip(scenario.value.model, scenario.folder).pixels
        for seed in seeds:
            plans = plan(scenario, seed).opened(scenario.value.measure)
            for one in (*plans, *plans.beside):
                if one.test:
                    load_cached(one.source, one.test, pixels)
                    sets += 1
    return sets
