"""One process at a time, on any machine: a lock that is void once its holder is known to be dead.

Two locks are held together. The system's own is given up when its holder dies, but some systems have none,
and on many shared folders it is local to a machine (NFS with ``local_lock``, Lustre with ``localflock``).
So a file beside it, which only one process can make, says who holds it: machine, process and a random word.
It is void

* where its process is known to be gone: on the same machine, where no such process began when that one did;
* where it has given no sign of life for ``SILENT`` seconds: its holder touches it every ``BEAT`` seconds.

On another machine, nobody can tell but by these signs: who finds the file there waits for the next one, and
is refused when it comes.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from ..files import open_file
from .holder import Holder, ourselves

# Seconds between two signs of life, and without one until a lock is void: network folders may show a sign a
# minute late, and a machine that swaps may give it later still.
BEAT = 5.0
SILENT = 120.0
# Seconds between two looks at the signs of another machine's process.
LOOK = 0.5
# Bytes of what a holder writes of itself, and more than that.
_MOST = 10_000
_WARY = sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
# Windows keeps others from reading what is locked: a byte beyond all that is written.
_BEYOND = 1 << 30


class Held(Exception):
    """Another process has the lock; the message says which."""


def ignore(sentence: str) -> None:
    """Who is told nothing."""


@contextmanager
def lock(
    path: Path, lost: Callable[[str], None] = ignore, tell: Callable[[str], None] = ignore
) -> Iterator[None]:
    """Hold the lock for this process; that of a dead process is void, whatever killed it.

    Args:
        path: a file that the lock is made of, which stays; ``<path>.pid`` is there as long as it is held.
        lost: called, in a thread of its own, when another took the lock over while this process stood still.
        tell: given a sentence when it has to be waited for signs of life.

    Raises:
        Held: if another process holds it.
        OSError: if the file cannot be written.
    """
    with _opened(path) as file, ExitStack() as held:
        try:
            _take(file, held)
        except BlockingIOError:
            file.seek(0)
            told = Holder.read(file.read(_MOST))
            raise Held(str(told) if told else "another process") from None
        held.enter_context(_exclusive_file(path.with_name(f"{path.name}.pid"), lost, tell))
        file.truncate(0)
        file.write(ourselves().written())
        file.flush()
        yield


def _opened(path: Path) -> TextIO:
    """The file, made where it is not there. Its content is going to be replaced, so that under this name it
    must be no other's.

    Raises:
        OSError: also for a link, a pipe, or whatever is no regular file.
    """
    foreign = OSError(errno.EINVAL, f"{path.name} beside it is a link, or no regular file", str(path))
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise foreign
    # What was none a moment ago may be one by now: neither followed nor waited for.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _WARY, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise foreign
    return os.fdopen(handle, "a+", encoding="utf-8", errors="replace")


def _take(file: TextIO, held: ExitStack) -> None:
    """Lock the file where the system can; some network file systems cannot.

    Raises:
        BlockingIOError: if another process has it.
    """
    try:
        import fcntl
    except ImportError:
        _take_windows(file, held)
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given up when the file is closed
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _take_windows(file: TextIO, held: ExitStack) -> None:
    try:
        import msvcrt
    except ImportError:
        return

    def byte(action: int) -> None:
        os.lseek(file.fileno(), _BEYOND, os.SEEK_SET)
        msvcrt.locking(file.fileno(), action, 1)

    try:
        byte(msvcrt.LK_NBLCK)
    except OSError:
        raise BlockingIOError from None
    held.callback(byte, msvcrt.LK_UNLCK)  # closing alone gives it up "at some time"


@contextmanager
def _exclusive_file(path: Path, lost: Callable[[str], None], tell: Callable[[str], None]) -> Iterator[None]:
    """A file that only one process can make, which says whose it is and that it lives."""
    content = ourselves(secrets.token_hex(8)).written()
    if not _made(path, content):
        _remove_void(path, tell)
        if not _made(path, content):
            raise Held("another process, which was quicker")
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, content, ended, lost), daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        if _content(path) == content:
            path.unlink(missing_ok=True)


def _beat(path: Path, content: str, ended: threading.Event, lost: Callable[[str], None]) -> None:
    """Touch the file now and then, as long as it is ours."""
    while not ended.wait(BEAT):
        try:
            found = _content(path)
            # Who deletes a lock by hand says that nobody holds it; we do, as long as nobody else does.
            if found == content or (found is None and _made(path, content)):
                os.utime(path)  # by the clock of the machine that has the folder
                continue
        except OSError:  # a server that is away for a moment
            continue
        if not ended.is_set():
            lost(str(Holder.read(_content(path) or "") or "another process"))
        return


def _made(path: Path, content: str) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(content)
    return True


def _content(path: Path) -> str | None:
    try:
        with open_file(path) as file:
            return file.read(_MOST).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _remove_void(path: Path, tell: Callable[[str], None]) -> None:
    """Remove the file of a process that is gone.

    Raises:
        Held: if the process lives.
    """
    content = _content(path)
    if content is None:
        return
    holder = Holder.read(content)
    if holder is None or not holder.is_gone():
        _wait_for_silence(path, holder, tell)
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        os.replace(path, aside)
    except FileNotFoundError:  # given up, or removed by another that waits for it
        return
    try:
        # Between the look and the removal, another may have removed it and made its own.
        if _content(aside) != content:
            with suppress(OSError):  # a third one; the second notices that it lost the lock
                os.link(aside, path)
            raise Held(str(Holder.read(_content(aside) or "") or "another process"))
    finally:
        aside.unlink(missing_ok=True)


def _wait_for_silence(path: Path, holder: Holder | None, tell: Callable[[str], None]) -> None:
    """Until the file has had no sign of life for long enough, or is gone.

    Raises:
        Held: at a sign of life, and where the process is known to live.
    """
    who, first, looked = str(holder or "another process"), None, time.monotonic()
    while True:
        try:
            with open_file(path) as file:  # what is opened is asked of the server anew
                beaten = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return
        if first not in (None, beaten):
            raise Held(who)
        # Where a clock was put back, the sign stands in the future, and only our own time tells its age.
        age = max(_now(path) - beaten, time.monotonic() - looked)
        if age >= SILENT:
            return
        if holder is not None and holder.is_alive():
            raise Held(who)
        if first is None:
            first = beaten
        elif age > 3 * BEAT and tell is not ignore:
            tell(
                f"{who} holds this run and gave its last sign of life {age:.0f} s ago; without another, this"
                f" one takes over after {SILENT:.0f} s"
            )
            tell = ignore
        time.sleep(LOOK)


def _now(path: Path) -> float:
    """Time by the clock that the folder's files have theirs from, which may be another machine's."""
    probe = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
