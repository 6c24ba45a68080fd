"""Avalanche without a file in the user's home, which it otherwise writes as soon as it is imported."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDER = "~/.avalanche"
# What Avalanche would write, and reads: where its own data sets lie, none of which is used here.
_DEFAULTS = Path(__file__).with_name("avalanche_defaults")


@contextmanager
def avalanche_reads_only() -> Iterator[None]:
    """Within, Avalanche's import finds a configuration of ours, unless the user has one that it can read.

    Avalanche looks for ``~/.avalanche/config.json`` with ``os.path.expanduser`` and makes it where it is
    missing; a home that is missing or cannot be written would end every run.
    """
    if _readable(Path(os.path.expanduser(_FOLDER)) / "config.json"):
        yield
        return
    expanduser = os.path.expanduser

    def elsewhere(path: str) -> str:
        if isinstance(path, str) and path in (_FOLDER, f"{_FOLDER}/config.json"):
            return f"{_DEFAULTS}{path[len(_FOLDER) :]}"
        return expanduser(path)

    os.path.expanduser = elsewhere
    try:
        yield
    finally:
        os.path.expanduser = expanduser


def _readable(path: Path) -> bool:
    try:
        return "dataset_location" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
