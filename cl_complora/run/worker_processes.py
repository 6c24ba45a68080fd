"""Processes of this machine that are given work: one job at a time each, on a device of its own, and another
process where one is killed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from .signals import Stopped, answered_by

# How often the process of a job may be killed from outside before the job counts as failed.
KILLED = 2
# What others end a process with; by any other signal it ends itself (a fault in native code).
_FROM_OUTSIDE = {signal.SIGTERM, signal.SIGINT} | {
    getattr(signal, name) for name in ("SIGKILL", "SIGHUP") if hasattr(signal, name)
}


@dataclass(frozen=True)
class Ended:
    """A process that ended before its job was done.

    Attributes:
        why: what is known of it, a part of a sentence.
        killed: from outside, as far as can be told.
        starting: by an error and before it could take a job, as another in its place would.
    """

    why: str
    killed: bool = False
    starting: bool = False


class WorkerProcesses:
    """Processes that import torch once and then take job after job; made for use in ``with``.

    Args:
        devices: one process for each, which may be named several times.
        threads: of every process.
    """

    def __init__(self, devices: Sequence[str], threads: int) -> None:
        # torch reads this when a worker loads it; the number set later does not reach all of its libraries.
        self._before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._free: SimpleQueue[_Process] = SimpleQueue()
        self._processes = [_Process(device, threads) for device in devices]
        for process in self._processes:
            self._free.put(process)
        self._waiting = ThreadPoolExecutor(len(devices))

    def __enter__(self) -> WorkerProcesses:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # One more signal must not cut the waiting short: a pool that is left half shut down is waited for, by
        # Python's exit, for ever.
        with answered_by(self._end_at_once) as asked:
            # First of all: who waits for a process that is ended would begin the next job.
            self._waiting.shutdown(wait=False, cancel_futures=True)
            for process in self._processes:
                process.end(now=kind is not None)
            for process in self._processes:
                process.wait()
            self._waiting.shutdown(wait=True)
            os.environ.pop("OMP_NUM_THREADS")
            if self._before is not None:
                os.environ["OMP_NUM_THREADS"] = self._before
        if asked and kind is None:
            signal.raise_signal(asked[0])

    def _end_at_once(self) -> None:
        """Ask every process again: what finishes a step of training then leaves it."""
        for process in self._processes:
            process.ask_to_end()

    def each(self, job: Callable[..., Any], arguments: Sequence[tuple]) -> Iterator[tuple[int, Any]]:
        """Do one job with every tuple of arguments.

        Args:
            job: a function of a module; called with the arguments and the process's device.
            arguments: as many as there are jobs.

        Yields:
            Place of the arguments and what the job returned, as they come; :class:`Ended` where its process
            ended ``KILLED`` times, or by an error while it was starting.
        """
        waiting = {self._waiting.submit(self._do, job, each): index for index, each in enumerate(arguments)}
        for future in as_completed(waiting):
            yield waiting[future], future.result()

    def _do(self, job: Callable[..., Any], arguments: tuple) -> Any:
        process = self._free.get()
        try:
            return process.do(job, arguments)
        finally:
            self._free.put(process)


class _Process:
    """One process at a time on one device; another takes the place of one that is killed or ended."""

    def __init__(self, device: str, threads: int) -> None:
        self.device, self.threads = device, threads
        self._pool: ProcessPoolExecutor | None = None
        self._process: BaseProcess | None = None
        # What it says once it has started, or cannot; both ends, which are open as long as it lives.
        self._starting: tuple[Connection, Connection] | None = None
        self._ended = False
        self._changing = threading.Lock()

    def do(self, job: Callable[..., Any], arguments: tuple) -> Any:
        """One job, begun again in another process where the first is killed.

        Raises:
            CancelledError: where the process was ended before the job began.
        """
        ended = None
        for _ in range(KILLED):
            try:
                return self._begun(job, arguments).result()
            except (BrokenProcessPool, Stopped) as error:  # as a rule killed, or asked to end, from outside
                said = self.wait()
                if self._ended:
                    raise
                code = None if self._process is None or isinstance(error, Stopped) else self._process.exitcode
                ended = _ended_with(code, said)
                if ended.starting:
                    break
        return ended

    def _begun(self, job: Callable[..., Any], arguments: tuple) -> Future:
        # Held until the process is there, so that :meth:`end` comes before it is made, or finds it.
        with self._changing:
            if self._ended:
                raise CancelledError
            if self._pool is None:
                context = get_context("spawn")
                self._starting = context.Pipe(duplex=False)
                self._pool = ProcessPoolExecutor(
                    1, context, initializer=_settle, initargs=(self.threads, self._starting[1])
                )
            begun = self._pool.submit(job, *arguments, self.device)
            self._process = next(iter((self._pool._processes or {}).values()), self._process)
            return begun

    def end(self, now: bool) -> None:
        """Begin no more jobs.

        Args:
            now: end the one that is being done, too.
        """
        with self._changing:
            self._ended = True
            if now:
                self.ask_to_end()

    def ask_to_end(self) -> None:
        """Ask the process to end, without waiting for who holds it: signals are answered anywhere."""
        if self._process is not None and self._process.is_alive():
            self._process.terminate()

    def wait(self) -> str | None:
        """Let go of the process, once it has ended or has nothing to do.

        Where it is killed while all are ended, two threads do so, which would close a pipe twice.

        Returns:
            What it said of its start: nothing where it took jobs, or why it could not; None where it did not
            come that far.
        """
        with self._changing:
            if self._pool is None:
                return ""
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
            reading, writing = self._starting
            said = reading.recv() if reading.poll() else None
            reading.close()
            writing.close()
            return said


def _ended_with(code: int | None, said: str | None) -> Ended:
    """How a process ended.

    Args:
        code: its exit code, or minus the number of a signal; None where it is not known.
        said: of its start, as :meth:`_Process.wait` returns it.
    """
    if code is None or -code in _FROM_OUTSIDE:
        return Ended("killed from outside", killed=True)
    if code < 0:
        known = -code in list(signal.Signals)
        return Ended(f"its process crashed ({signal.Signals(-code).name if known else f'signal {-code}'})")
    if said == "":
        return Ended(f"its process ended by itself (exit code {code})")
    told = f": {said}" if said else f" (exit code {code}), and said above what is wrong{_likely_cause()}"
    return Ended(f"its process ended with an error while it was starting{told}", starting=True)


def _likely_cause() -> str:
    """What is wrong with a script whose processes cannot read it again, as each does when it starts."""
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None)
    if script is None or getattr(main, "__spec__", None) is not None:  # a notebook, or python -m
        return ""
    try:
        text = Path(script).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"; it has to read the script again, and there is no file {script}"
    if "__main__" in text:
        return ""
    return (
        f"; the likely cause: every process reads {script} again, and that starts processes as well: call"
        ' what starts them below if __name__ == "__main__":'
    )


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _settle(threads: int, starting: Connection) -> None:
    """Make a process ready for jobs.

    Args:
        threads: that it computes with.
        starting: told once it is ready, or why it is not.
    """
    try:
        _prepare(threads)
    except Exception as error:
        starting.send(f"{type(error).__name__}: {' '.join(str(error).split())}")
        raise
    starting.send("")


def _prepare(threads: int) -> None:
    """A worker dies with its parent, however that dies: an orphan would hold the locks of its runs."""
    parent = parent_process()
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the parent ends its workers
    import torch

    torch.set_num_threads(threads)
