"""What processes leave that are killed while they write."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..files import is_left


def remove_leftovers(root: Path) -> None:
    """Remove the temporary files below a run's folder that nobody writes any more.

    Another process, here or on another machine, may be writing a report into the folder meanwhile.
    """
    for leftover in root.rglob(".*.tmp"):
        with suppress(FileNotFoundError):  # it was written meanwhile
            if is_left(leftover):
                leftover.unlink()
