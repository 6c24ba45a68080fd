"""How many threads compute a run: as many as it began with, and one where more do not pay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import get_num_threads, nn, set_num_threads

from ..errors import UserError
from ..store.folder import RunDir

# Parameters up to which one thread is at least as fast as two: the matrices are too small to share out.
SMALL = 5_000_000


def threads_of(folder: RunDir, model: nn.Module, device: str) -> int:
    """Number of threads of a run.

    An interrupted run goes on with the number it began with, wherever that is: results depend on it in their
    last bits. A small model on the CPU gets one thread: it loses nothing, and beside other work it gains
    several times, since threads that wait for one another spin. ``OMP_NUM_THREADS`` overrules that for a run
    that begins.

    Args:
        folder: of the run, which may not have begun.
        model: that is trained.
        device: it computes on.
    """
    small = device == "cpu" and sum(p.numel() for p in model.parameters()) <= SMALL
    own = 1 if small and "OMP_NUM_THREADS" not in os.environ else get_num_threads()
    return _begun_with(folder) or own


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """So many threads, and as many as before afterwards."""
    before = get_num_threads()
    set_num_threads(threads)
    try:
        yield
    finally:
        set_num_threads(before)


def _begun_with(folder: RunDir) -> int | None:
    try:
        config = folder.read_config()
    except UserError:  # told by the run itself
        return None
    threads = None if config is None else config.get("threads")
    return threads if isinstance(threads, int) and threads > 0 else None
