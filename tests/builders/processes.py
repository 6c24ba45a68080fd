"""Processes that begin with everything imported: forked from one that has done so once and run nothing.

A process that imports torch, open_clip, Avalanche and matplotlib takes ten seconds of a core before it does
anything; tests of kills, signals, locks and exit codes need processes, but not those seconds. What is about
the start itself (what is imported, what the environment says to an import) has to use ``subprocess``.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from builders import fork_server
from builders.drawing import leave_out, left_out
from cl_complora.compare import workers
from cl_complora.run import worker_processes

_settle = worker_processes._settle


class Process:
    """A running function, with the words of :class:`subprocess.Popen`; its output goes to files.

    Args:
        target: a function of a module that can be imported.
        arguments: what it is called with.
        cwd: its working folder.
    """

    def __init__(self, target: Callable, *arguments: object, cwd: str | bytes | Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cl_complora-test-process-")
        self._out, self._err = (Path(self._folder.name) / name for name in ("out", "err"))
        self._out.touch()
        self._err.touch()
        where = os.fsdecode(cwd or os.getcwd())
        server = fork_server.address()
        self._process = fork_server.CONTEXT.Process(
            target=_begin,
            args=(str(self._out), str(self._err), where, dict(os.environ), server, left_out())
            + (target, arguments),
        )
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Nothing for one that has ended, as there."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """Waits for its end; everything that it wrote."""
        self._process.join(timeout)
        if self.poll() is None:
            self.kill()
            raise subprocess.TimeoutExpired("a forked process", timeout)
        return self.said(), _text(self._err)

    def said(self) -> str:
        """What it wrote to standard output until now."""
        return _text(self._out)

    def wait_for(self, condition: Callable[[], object], seconds: float = 120) -> None:
        """Until something is true, which has to be before the process ends."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.poll() is None and time.monotonic() < end, self.communicate()
            time.sleep(0.01)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def unsynchronise(put: Callable[[object, str, object], None]) -> None:
    """No test cuts the power, and a disk takes milliseconds to say that it has written. ``put`` is
    ``setattr`` or a monkeypatch's."""
    put(os, "fsync", lambda file: None)


def share_imports(put: Callable[[object, str, object], None]) -> None:
    """A comparison's workers begin with everything imported, and have one thread each: two fight over the
    cores with the other tests. ``put`` is ``setattr`` or a monkeypatch's."""
    put(worker_processes, "get_context", lambda kind: fork_server.CONTEXT)
    put(workers, "cores", lambda: 1)


def hand_on(put: Callable[[object, str, object], None]) -> None:
    """Workers of a comparison do without what this process does without now. ``put`` is ``setattr`` or a
    monkeypatch's."""
    put(worker_processes, "_settle", partial(_settle_without, left_out()))


def _settle_without(kinds: tuple[str, ...], *settings: object) -> None:
    leave_out(setattr, *kinds)
    unsynchronise(setattr)
    _settle(*settings)


def _begin(
    out: str,
    err: str,
    cwd: str,
    environment: dict[str, str],
    server: str,
    without: tuple[str, ...],
    target: Callable,
    arguments: tuple,
) -> None:
    gc.freeze()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    # A shell has its background jobs ignore Ctrl-C, and what they start inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = open(
        2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1
    )
    leave_out(setattr, *without)  # what the tests do without, a process of theirs does without too
    hand_on(setattr)
    fork_server.join(server)
    share_imports(setattr)
    unsynchronise(setattr)
    target(*arguments)


def command_line(*words: str) -> None:
    """What ``python -m cl_complora`` does."""
    from cl_complora.cli import main

    sys.argv = ["cl-complora", *words]
    main()


def start(*words: object, cwd: str | bytes | Path | None = None) -> Process:
    """The command, running."""
    texts = [os.fsdecode(word) if isinstance(word, bytes) else str(word) for word in words]
    return Process(command_line, *texts, cwd=cwd)


def ended(*words: object, cwd: str | bytes | Path | None = None) -> subprocess.CompletedProcess:
    """The command, which has ended; its output as text."""
    return completed(start(*words, cwd=cwd))


def completed(process: Process) -> subprocess.CompletedProcess:
    out, err = process.communicate()
    return subprocess.CompletedProcess((), process.returncode, out, err)
