"""What processes leave that are killed while they write."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from ..files import writer_of
from .holder import Holder

# Nothing of a run takes as long to write, however slow the folder is. In seconds.
OLD = 3600.0


def remove_leftovers(root: Path) -> None:
    """Remove the temporary files below a run's folder that nobody writes any more.

    Another process, here or on another machine, may be writing a report into the folder meanwhile.
    """
    for leftover in root.rglob(".*.tmp"):
        writer = writer_of(leftover)
        with suppress(FileNotFoundError):  # it was written meanwhile
            old = time.time() - leftover.stat().st_mtime > OLD
            if old or (writer is not None and Holder.named(*writer).is_gone()):
                leftover.unlink()
