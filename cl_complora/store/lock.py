"""One process at a time: a lock that the system gives up when its holder dies, where the system has one."""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

# Windows keeps others from reading what is locked: a byte beyond all that is written.
_BEYOND = 1 << 30


class Held(Exception):
    """Another process has the lock; the message says which."""


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock for this process; that of a dead process is void, whatever killed it.

    Args:
        path: a file that the lock is made of, which stays.

    Raises:
        Held: if another process holds it.
        OSError: if the file cannot be written.
    """
    with path.open("a+", encoding="utf-8") as file, ExitStack() as held:
        try:
            alone = _take(file, held)
        except BlockingIOError:
            file.seek(0)
            raise Held(file.read().strip() or "another process") from None
        if not alone:
            held.enter_context(_exclusive_file(path.with_name(f"{path.name}.pid")))
        file.truncate(0)
        file.write(_ourselves())
        file.flush()
        yield


def _ourselves() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _take(file: TextIO, held: ExitStack) -> bool:
    """Whether the system locked the file for us; False where it has no locks (some network file systems).

    Raises:
        BlockingIOError: if another process has it.
    """
    try:
        import fcntl
    except ImportError:
        return _take_windows(file, held)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given up when the file is closed
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise
    return True


def _take_windows(file: TextIO, held: ExitStack) -> bool:
    try:
        import msvcrt
    except ImportError:
        return False

    def byte(action: int) -> None:
        os.lseek(file.fileno(), _BEYOND, os.SEEK_SET)
        msvcrt.locking(file.fileno(), action, 1)

    try:
        byte(msvcrt.LK_NBLCK)
    except OSError:
        raise BlockingIOError from None
    held.callback(byte, msvcrt.LK_UNLCK)  # closing alone gives it up "at some time"
    return True


@contextmanager
def _exclusive_file(path: Path) -> Iterator[None]:
    """A file that only one process can make, which says whose it is; one whose process is gone is void."""
    if not _made(path):
        _remove_void(path)
        if not _made(path):
            raise Held("another process, which was quicker")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _made(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(_ourselves())
    return True


def _remove_void(path: Path) -> None:
    """Remove the file of a process that is gone.

    Raises:
        Held: if the process lives, or may live: on another machine nobody can tell from here.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        holder = path.read_text(encoding="utf-8").strip()
        if _may_live(holder):
            raise Held(f"{holder or 'another process'} (if that is gone, delete {path})")
        os.replace(path, aside)
    except FileNotFoundError:  # given up, or removed by another that waits for it
        return
    # Between reading and removing, another may have removed it and made its own.
    holder = aside.read_text(encoding="utf-8").strip()
    if _may_live(holder):
        os.replace(aside, path)
        raise Held(holder or "another process")
    aside.unlink()


def _may_live(holder: str) -> bool:
    """Whether the process is there, or cannot be looked up."""
    match = re.fullmatch(r"process (\d+)(?: on (.*))?", holder)
    if match is None or match[2] not in (None, platform.node()):
        return True
    import psutil

    return psutil.pid_exists(int(match[1]))
