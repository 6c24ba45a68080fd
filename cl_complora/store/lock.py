"""One process at a time: a lock that the system gives up when its holder dies, where the system has one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
    with path.open("a+", encoding="utf-8") as file:
        try:
            alone = _take(file)
        except BlockingIOError:
            file.seek(0)
            raise Held(file.read().strip() or "another process") from None
        if not alone:
            with _exclusive_file(path.with_name(f"{path.name}.pid")):
                yield
            return
        file.truncate(0)
        file.write(_holder())
        file.flush()
        yield


def _holder() -> str:
    return f"process {os.getpid()}"


def _take(file: TextIO) -> bool:
    """Whether the system locked the file for us; False where it has no locks (some network file systems).

    Raises:
        BlockingIOError: if another process has it.
    """
    try:
        import fcntl
    except ImportError:
        return _take_windows(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise
    return True


def _take_windows(file: TextIO) -> bool:
    try:
        import msvcrt
    except ImportError:
        return False
    os.lseek(file.fileno(), _BEYOND, os.SEEK_SET)
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError:
        raise BlockingIOError from None
    return True


@contextmanager
def _exclusive_file(path: Path) -> Iterator[None]:
    """A file that only one process can make, with its number in it; one whose process is gone is void."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        holder = path.read_text(encoding="utf-8").strip()
        if _lives(holder):
            raise Held(holder or f"another process (or delete {path})") from None
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(_holder())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _lives(holder: str) -> bool:
    """Whether the process is there, or cannot be looked up."""
    number = holder.removeprefix("process ")
    if not number.isdigit():
        return True
    try:
        os.kill(int(number), 0)  # only asks; on Windows it would end the process, but there are locks there
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
