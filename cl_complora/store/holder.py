"""A process as another one, perhaps on another machine, can know it."""

from __future__ import annotations

import json
import os
import platform
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..files import is_running, parse_json


@dataclass(frozen=True)
class Holder:
    """Who holds something.

    Attributes:
        pid: of the process.
        host: name of its machine.
        space: what, beside the name, tells machines apart on which the same number is the same process: the
            boot and, in containers, the space of process numbers. Empty where the system does not tell.
        began: when the process began, in seconds since 1970; None where that is not known.
        word: random, so that no two are the same.
    """

    pid: int
    host: str
    space: str = ""
    began: float | None = None
    word: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def written(self) -> str:
        """As a file has it: for people, then for :meth:`read`."""
        return f"{self}\n{json.dumps(asdict(self))}\n"

    @classmethod
    def read(cls, text: str) -> Holder | None:
        """What :meth:`written` wrote, or earlier versions did; None for anything else."""
        first, _, rest = text.strip().partition("\n")
        match = re.fullmatch(r"process (\d{1,10}) on (.*)", first)
        if match is None:
            return None
        with suppress(ValueError, TypeError, KeyError):
            told = parse_json(rest, own=True)
            if isinstance(told["space"], str) and isinstance(told["word"], str):
                began = None if told["began"] is None else float(told["began"])
                return cls(int(match[1]), match[2], told["space"], began, told["word"])
        return cls(int(match[1]), match[2], _space())  # of which no more is known

    def is_gone(self) -> bool:
        """Whether the process is known to be dead: False also where it cannot be looked up."""
        return self._is_here() and not self._runs()

    def is_alive(self) -> bool:
        """Whether the process is known to live: False also where it cannot be looked up."""
        return self._is_here() and self._runs()

    def _is_here(self) -> bool:
        return (self.host, self.space) == (platform.node(), _space())

    def _runs(self) -> bool:
        return is_running(self.pid, self.began)


def ourselves(word: str = "") -> Holder:
    """This process.

    Args:
        word: random.
    """
    import psutil

    try:
        began: float | None = psutil.Process().create_time()
    except psutil.Error:
        began = None
    return Holder(os.getpid(), platform.node(), _space(), began, word)


def _space() -> str:
    parts = []
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
