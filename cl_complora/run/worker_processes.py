"""Processes of this machine that are given work: one job at a time each, on a device of its own, and another
process where one is killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from .signals import Stopped

# How often the process of a job may be killed from outside before the job counts as failed.
KILLED = 2


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

    def each(self, job: Callable[..., Any], arguments: Sequence[tuple]) -> Iterator[tuple[int, Any]]:
        """Do one job with every tuple of arguments.

        Args:
            job: a function of a module; called with the arguments and the process's device.
            arguments: as many as there are jobs.

        Yields:
            Place of the arguments and what the job returned, as they come; None where its process was killed
            ``KILLED`` times.
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
        self._ended = False
        self._changing = threading.Lock()

    def do(self, job: Callable[..., Any], arguments: tuple) -> Any:
        """One job, begun again in another process where the first is killed.

        Raises:
            CancelledError: where the process was ended before the job began.
        """
        for _ in range(KILLED):
            try:
                return self._begun(job, arguments).result()
            except (BrokenProcessPool, Stopped):  # killed, or asked to end, from outside
                self.wait()
                if self._ended:
                    raise
        return None

    def _begun(self, job: Callable[..., Any], arguments: tuple) -> Future:
        # Held until the process is there, so that :meth:`end` comes before it is made, or finds it.
        with self._changing:
            if self._ended:
                raise CancelledError
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    1, get_context("spawn"), initializer=_settle, initargs=(self.threads,)
                )
            return self._pool.submit(job, *arguments, self.device)

    def end(self, now: bool) -> None:
        """Begin no more jobs.

        Args:
            now: end the one that is being done, too.
        """
        with self._changing:
            self._ended = True
            if now and self._pool is not None:
                for process in list((self._pool._processes or {}).values()):
                    process.terminate()

    def wait(self) -> None:
        """Let go of the process, once it has ended or has nothing to do.

        Where it is killed while all are ended, two threads do so, which would close a pipe twice.
        """
        with self._changing:
            if self._pool is not None:
                self._pool.shutdown(wait=True, cancel_futures=True)
                self._pool = None


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _settle(threads: int) -> None:
    """A worker dies with its parent, however that dies: an orphan would hold the locks of its runs."""
    parent = parent_process()
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the parent ends its workers
    import torch

    torch.set_num_threads(threads)
