"""A stand-in for Python on Windows, which is not at hand: what it lacks is taken away, what it has instead is
added.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import types

import psutil  # noqa: F401 - looks at the real system while it is imported

# What the standard library itself uses wherever it does not find Windows has to stay.
MISSING = {
    os: (
        "O_NONBLOCK",
        "O_DIRECTORY",
        "O_NOFOLLOW",
        "sysconf",
        "sched_getaffinity",
        "fork",
        "killpg",
        "uname",
    ),
    signal: ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGALRM"),
}
WITHOUT = ("fcntl", "resource", "termios", "pwd", "grp")


def locks() -> types.ModuleType:
    """``msvcrt`` as far as locks go, made of this system's: they belong to an open file here as there."""
    module = types.ModuleType("msvcrt")
    module.LK_UNLCK, module.LK_LOCK, module.LK_NBLCK = 0, 1, 2

    def locking(handle: int, mode: int, count: int) -> None:
        if os.lseek(handle, 0, os.SEEK_CUR) == 0 or count != 1:
            raise OSError(36, "a byte that others read would be locked")
        try:
            fcntl.flock(handle, fcntl.LOCK_UN if mode == module.LK_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(13, "Permission denied") from None

    module.locking = locking
    return module


def stand_in() -> None:
    """Make this process lack what Python lacks on Windows."""
    for module, names in MISSING.items():
        for name in names:
            delattr(module, name)
    for name in WITHOUT:
        sys.modules[name] = None
    sys.modules["msvcrt"] = locks()
    opened = os.open

    def no_folders(path: str, *words: int, **options: int) -> int:
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *words, **options)

    os.open = no_folders
    shutil._use_fd_functions = False  # as where folders cannot be opened
