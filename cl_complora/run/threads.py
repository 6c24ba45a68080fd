"""How many threads compute a run: as many as it began with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import get_num_threads, set_num_threads

from ..errors import UserError
from ..store.folder import RunDir


def threads_of(folder: RunDir, fresh: bool) -> int:
    """Number of threads of a run.

    An interrupted run goes on with the number it began with, wherever that is: results depend on it in their
    last bits.

    Args:
        folder: of the run, which may not have begun.
        fresh: whether it starts over, with as many as are set.
    """
    return (None if fresh else _begun_with(folder)) or get_num_threads()


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
    return None if config is None else config.get("threads")
