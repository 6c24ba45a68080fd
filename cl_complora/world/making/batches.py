"""Batches of the pretraining: general pictures from a sliding window of blocks, and loose ones beside them.

Worker processes draw the blocks ahead, each a function of (seed, block number); which images make a batch
depends on the step alone, so a resumed pretraining sees what an undisturbed one would have seen.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..domains import DOMAINS
from ..generator import block
from .loose import draw_loose, new_stock
from .loose_captions import FAMILIES, Reading

BATCH = 64
BLOCK = 2048
USES = 2
"""How often a picture is trained on before its block is dropped."""
WINDOW = 8
"""Blocks that batches are drawn from at a time."""
LOOSE_FROM = 0.25
"""Share of the training after which loose pairs join in: when the curriculum has become busy."""
_TOGETHER = 2
"""Families that a batch's loose pictures are of, so that some of one family stand against each other."""


@dataclass(frozen=True)
class Plan:
    """What the pretraining draws.

    Attributes:
        seed: of the pictures and the batches.
        images: length of the whole training.
        loose: share of loose pairs once they have joined in.
        reading: how loosely their captions fit.
        workers: processes that draw.
    """

    seed: int
    images: int
    loose: float = 0.2
    reading: Reading = field(default_factory=Reading)
    workers: int = 1

    @property
    def blocks(self) -> int:
        """Blocks that a whole training draws."""
        return WINDOW + self.images // (BLOCK * USES) + 1

    @property
    def loose_images(self) -> int:
        """Loose pictures in a batch."""
        return round(self.loose * BATCH)


class Block(NamedTuple):
    """Pictures with captions; ``labels`` are concepts, or families where the block is loose."""

    pixels: np.ndarray
    captions: list[str]
    labels: np.ndarray


def draw_block(plan: Plan, number: int) -> tuple[Block, Block | None]:
    """General and loose pictures of one block; no loose ones before they join in."""
    done = number / max(1, plan.blocks)
    general = Block(*block(plan.seed, number, BLOCK, min(1.0, 4 * done)))
    # A window ahead, so that the first batch with loose pictures finds some.
    if not plan.loose_images or number + WINDOW + 1 < LOOSE_FROM * plan.blocks:
        return general, None
    return general, loose_block(plan, number, round(BLOCK * plan.loose))


def loose_block(plan: Plan, number: int, images: int) -> Block:
    """Loose pictures with their captions, all families and classes alike."""
    rng = np.random.default_rng([plan.seed, 99, number])
    stock = new_stock(rng)
    pixels, captions, families = [], [], []
    for i in range(images):
        index = i % len(FAMILIES)
        family = FAMILIES[index]
        label = int(rng.integers(len(DOMAINS[family].class_names)))
        pixels.append(draw_loose(family, label, rng, stock))
        captions.append(plan.reading.caption(family, label, rng))
        families.append(index)
    return Block(np.stack(pixels), captions, np.array(families))


def batches(plan: Plan, first: int = 0) -> Iterator[tuple[Tensor, list[str], Tensor]]:
    """(pixels ``B × 3 × 48 × 48`` uint8, captions, main concepts or −1) from image ``first`` on.

    Args:
        plan: what to draw.
        first: image to start from (a multiple of the batch).
    """
    begin = first // (BLOCK * USES)
    jobs = ((plan, number) for number in range(begin, plan.blocks))
    with multiprocessing.get_context("spawn").Pool(plan.workers) as pool:
        pending = [pool.apply_async(draw_block, job) for job in _take(jobs, WINDOW + 2 * plan.workers)]
        window = [pending.pop(0).get() for _ in range(WINDOW)]
        current = begin
        for image in range(first, plan.images, BATCH):
            if image // (BLOCK * USES) > current:
                current += 1
                window = [*window[1:], pending.pop(0).get()]
                pending += [pool.apply_async(draw_block, job) for job in _take(jobs, 1)]
            yield _batch(plan, window, image)


def _batch(
    plan: Plan, window: list[tuple[Block, Block | None]], image: int
) -> tuple[Tensor, list[str], Tensor]:
    rng = np.random.default_rng([plan.seed, 7, image])
    joined = plan.loose_images and image >= LOOSE_FROM * plan.images
    loose = [b for _, b in window if b is not None] if joined else []
    general = BATCH - plan.loose_images if loose else BATCH
    which, place = rng.integers(WINDOW, size=general), rng.integers(BLOCK, size=general)
    chosen = [(window[w][0], int(p)) for w, p in zip(which, place, strict=True)]
    labels = [int(b.labels[p]) for b, p in chosen]
    if loose:
        families = rng.choice(len(FAMILIES), _TOGETHER, replace=False)
        for i in range(plan.loose_images):
            source = loose[rng.integers(len(loose))]
            alike = np.flatnonzero(source.labels == families[i % _TOGETHER])
            chosen.append((source, int(alike[rng.integers(len(alike))])))
            labels.append(-1)
    pixels = np.stack([b.pixels[p] for b, p in chosen])
    dx, dy = rng.integers(-3, 4, 2)
    pixels = np.roll(pixels, (int(dy), int(dx)), (1, 2))
    captions = [b.captions[p] for b, p in chosen]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), captions, torch.tensor(labels)


def _take(iterator: Iterator, count: int) -> list:
    return [item for _, item in zip(range(count), iterator, strict=False)]
