"""Retention of two methods compared image by image: with one value a seed, no test could tell anything.

Two runs of one seed answer the same zero-shot images, and the untouched model is the same in both, so that
the difference of their retention is that of their last states: per image 1 (ours alone is right), −1 (the
reference alone is) or 0.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..analysis.mistakes import right_answers
from ..analysis.retrieved import found_first
from ..errors import UserError
from ..metrics import paired_change
from ..store.folder import RunDir
from ..store.forms import DIRECTIONS
from .statistics import RESAMPLES, Difference, interval, verdict

# Set → a digest of the keys of its images or queries, in order, and which of them are answered rightly.
Kept = dict[str, tuple[str, np.ndarray]]


def kept_by(folder: RunDir, results: dict[str, Any]) -> dict[str, Kept]:
    """Metric → what the last state of a run gets right of every set whose answers are recorded: of zero-shot
    sets for ``retention``, of the queries of retrieval sets, both ways, for a direction.

    Args:
        folder: of a finished run.
        results: its results.json.
    """
    try:
        config = folder.read_config()
    except UserError:
        config = None
    if config is None:
        return {}
    readers = {"retention": (results["zero_shot_sets"], right_answers)}
    for direction in DIRECTIONS:
        readers[direction] = (
            results.get("retrieval_retention", {}),
            partial(found_first, direction=direction),
        )
    found: dict[str, Kept] = {}
    for metric, (names, read) in readers.items():
        for name in names:
            seen = digested(partial(read, folder, config, name, state=len(results["tasks"])))
            if seen is not None:
                found.setdefault(metric, {})[name] = seen
    return found


def digested(
    read: Callable[[], tuple[Sequence[Any], Sequence[bool] | np.ndarray]],
) -> tuple[str, np.ndarray] | None:
    """What :data:`Kept` has of a set; None where no answers are kept, or they are damaged: then runs are
    compared by their figures.

    Args:
        read: gives the keys of the set's images or queries, in order, and which are answered rightly.
    """
    try:
        keys, right = read()
    except UserError:
        return None
    digest = hashlib.sha256(json.dumps(keys, ensure_ascii=False).encode()).hexdigest()
    return digest, np.asarray(right, dtype=bool)


def difference_by_image(ours: Sequence[Kept], reference: Sequence[Kept]) -> Difference | None:
    """Retention of a method minus that of the reference, in points; sets count once each.

    The interval is a bootstrap that draws seeds and images with replacement, both at once; an image goes with
    what all seeds answered to it. The test flips, image by image, which method is which (for one set and one
    seed it is McNemar's exact test); it knows of the images that were drawn, not of the seeds, and a
    difference is called only where the interval agrees.

    Args:
        ours, reference: what was kept, by seed, in the same order.

    Returns:
        None where the answers to any set are missing, or are to other images.
    """
    names = list(ours[0])
    blocks = [differences(name, ours, reference) for name in names]
    if not blocks or any(not block for block in blocks):
        return None
    mean = 100 * float(np.mean([_mean(block) for block in blocks]))
    rng = np.random.default_rng(0)
    seeds = len(ours)
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
    drawn = 100 * np.mean([_redrawn(block, weights, rng) for block in blocks], axis=0)
    low, high = interval(drawn)
    if len(blocks) == seeds == 1:
        values = blocks[0][0]
        lost, won = int((values < 0).sum()), int((values > 0).sum())
        p, test = paired_change(lost, won, values.size).p, "McNemar"
    else:
        p, test = _flipped(blocks, rng), "flips by image"
    pairs = sum(part.shape[1] for block in blocks for part in block)
    return Difference(mean, low, high, p, test, pairs, verdict(mean, low, high, p, pairs))


# Differences on one set: (seeds, images) where all seeds have the same images, else (1, images) of each seed.
_Block = list[np.ndarray]


def differences(name: str, ours: Sequence[Kept], reference: Sequence[Kept]) -> _Block:
    """What two methods answered differently, by seed; empty where anything is missing or does not fit."""
    rows, keys = [], []
    for one, other in zip(ours, reference, strict=True):
        if name not in one or name not in other:
            return []
        (images, mine), (others, theirs) = one[name], other[name]
        if images != others or not 0 < mine.size == theirs.size:
            return []
        keys.append((images, mine.size))
        rows.append(mine.astype(int) - theirs.astype(int))
    if all(images == keys[0] for images in keys):
        return [np.array(rows)]
    return [row[None] for row in rows]


def _mean(block: _Block) -> float:
    return float(np.mean([part.mean() for part in block]))


def _redrawn(block: _Block, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means of the differences over redrawn images and seeds, one a row of ``weights`` (draws, seeds)."""
    by_seed = []
    for part in block:
        # Images with equal answers are interchangeable: how many of each kind are drawn is enough. Kinds
        # stand as they first appear, so that the same are drawn whichever method is the reference.
        counted = Counter(map(bytes, part.T.astype(np.int8)))
        kinds = np.array([np.frombuffer(kind, np.int8) for kind in counted], dtype=int)
        images = part.shape[1]
        shares = np.array(list(counted.values())) / images
        by_seed.append(rng.multinomial(images, shares, size=len(weights)) @ kinds / images)
    return (np.hstack(by_seed) * weights).sum(1)


def _flipped(blocks: Sequence[_Block], rng: np.random.Generator) -> float:
    """Two-sided p of the mean difference where each image's sign is as good as the other."""
    total, flipped = 0.0, np.zeros(RESAMPLES)
    for block in blocks:
        for part in block:
            summed = part.sum(0)
            share = 1 / (len(blocks) * len(block) * part.size)
            total += share * summed.sum()
            for size, count in zip(*np.unique(abs(summed[summed != 0]), return_counts=True), strict=True):
                flipped += share * size * (2 * rng.binomial(count, 0.5, RESAMPLES) - count)
    return float((1 + (abs(flipped) >= abs(total) - 1e-12).sum()) / (1 + RESAMPLES))
