"""Images in memory, batch by batch, on the device that computes with them."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

# Batches that are on their way to a GPU or wait there: one is computed, one is there, one is being copied.
AHEAD = 3


def batches_on(device: torch.device, pixels: Tensor, size: int) -> Iterator[Tensor]:
    """``pixels.split(size)`` on a device; a batch is good until the next one is asked for.

    A GPU gets its batches from page-locked memory on a stream of their own, while it computes with the one
    before. Nobody waits for its results: the one who asks runs ahead by ``AHEAD`` batches at most, which
    bounds what lies there.

    Args:
        device: where to.
        pixels: ``N × …``, of any type; uint8 are a quarter of what floats would be to copy.
        size: images of a batch; the last one may have fewer.
    """
    if device.type == "cuda":
        yield from _copied_ahead(device, pixels, size)
        return
    for batch in pixels.split(size):
        if len(batch):  # nothing splits into one empty batch
            yield batch.to(device)


class _Place:
    """Room for a batch on both sides, and what has been done with it."""

    def __init__(self, like: Tensor, device: torch.device, cuda: ModuleType, pinned: bool) -> None:
        self.host = torch.empty_like(like, device="cpu", pin_memory=pinned)
        self.device = torch.empty_like(like, device=device)
        self.copied, self.used = cuda.Event(), cuda.Event()
        self.taken = False


def _copied_ahead(
    device: torch.device, pixels: Tensor, size: int, cuda: ModuleType = torch.cuda, pinned: bool = True
) -> Iterator[Tensor]:
    """As :func:`batches_on`; tests give a stand-in for ``torch.cuda``."""
    computing, copying = cuda.current_stream(device), cuda.Stream(device)
    places = [_Place(pixels[:size], device, cuda, pinned) for _ in range(min(AHEAD, -(-len(pixels) // size)))]
    # The memory of the places may be that of something which is still being computed with.
    copying.wait_stream(computing)
    try:
        for number, batch in enumerate(pixels.split(size) if len(pixels) else ()):
            place = places[number % len(places)]
            if place.taken:
                place.copied.synchronize()  # of AHEAD batches ago
            place.host[: len(batch)].copy_(batch)
            with cuda.stream(copying):
                if place.taken:
                    copying.wait_event(place.used)
                place.device[: len(batch)].copy_(place.host[: len(batch)], non_blocking=True)
                place.copied.record(copying)
            place.taken = True
            computing.wait_event(place.copied)
            yield place.device[: len(batch)]
            place.used.record(computing)
    finally:
        # What is left early must not be written to when it is given to someone else.
        computing.wait_stream(copying)
