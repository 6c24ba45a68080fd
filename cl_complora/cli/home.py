"""A home folder that is missing or cannot be written, as on compute nodes and in containers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Where matplotlib keeps its list of fonts; without it, every process says so and makes the list anew.
_VARIABLE = "MPLCONFIGDIR"


@contextmanager
def any_home() -> Iterator[None]:
    """Within, matplotlib (of this process and of those that it starts) has a place to write in: a temporary
    one where its own cannot be made."""
    if _VARIABLE in os.environ or all(map(_can_be_made, _own_places())):
        yield
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="cl_complora-", ignore_cleanup_errors=True)
    except OSError:  # nothing can be written anywhere
        yield
        return
    with folder as name:
        os.environ[_VARIABLE] = name
        try:
            yield
        finally:
            del os.environ[_VARIABLE]


def _own_places() -> list[str]:
    bases = (("XDG_CONFIG_HOME", "~/.config"), ("XDG_CACHE_HOME", "~/.cache"))
    return [
        os.path.join(os.environ.get(name) or os.path.expanduser(base), "matplotlib") for name, base in bases
    ]


def _can_be_made(place: str) -> bool:
    """Whether a folder is there, or could be made; tried, since permissions do not tell all."""
    path = Path(place)
    if not path.is_absolute():  # no home at all: "~" stays as it is
        return False
    try:
        while not path.exists():
            path = path.parent
        os.rmdir(tempfile.mkdtemp(dir=path))
    except OSError:
        return False
    return True
