"""Several runs at once in processes of this machine, which share cores and GPUs out."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from queue import SimpleQueue
from types import TracebackType

from .outcomes import Outcome
from .trials import Trial
from .workers import Placing, Report, no_gpu, run_trial

# How often a run may be killed from outside before it counts as failed.
KILLED = 2


class Processes:
    """Processes that run trials, each with its share of the cores and with one of the GPUs.

    Args:
        placing: how many, and how.
        devices: that runs are spread over; those that this machine shows where None.
        tell: given a sentence where fewer run at a time than was asked for.

    Raises:
        UserError: for a share of a GPU where there is none.
    """

    def __init__(
        self,
        placing: Placing,
        devices: Sequence[str] | None = None,
        tell: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.placing = placing
        places = spread(placing, visible_devices(placing) if devices is None else devices)
        if len(places) < placing.jobs:
            tell(
                f"{len(places)} runs at a time and not {placing.jobs}: each takes {placing.gpus_per_run:g} of"
                " a GPU"
            )
        self.threads = placing.threads_of_run()
        # torch reads this when a worker loads it; the number set later does not reach all of its libraries.
        self._before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        self._free: SimpleQueue[_Process] = SimpleQueue()
        self._processes = [_Process(device, self.threads) for device in places]
        for process in self._processes:
            self._free.put(process)
        self._waiting = ThreadPoolExecutor(len(places))

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes:
            process.end(now=kind is not None)
        self._waiting.shutdown(wait=True, cancel_futures=True)
        os.environ.pop("OMP_NUM_THREADS")
        if self._before is not None:
            os.environ["OMP_NUM_THREADS"] = self._before

    def run(self, trials: Sequence[Trial], report: Report) -> list[Outcome]:
        """As :meth:`~cl_complora.compare.workers.Workers.run`."""
        done: dict[int, Outcome] = {}
        waiting = {self._waiting.submit(self._run, t): index for index, t in enumerate(trials)}
        for future in as_completed(waiting):
            index = waiting[future]
            done[index] = future.result()
            report(trials[index], done[index])
        return [done[index] for index in range(len(trials))]

    def _run(self, t: Trial) -> Outcome:
        process = self._free.get()
        try:
            return process.run(t, self.placing)
        finally:
            self._free.put(process)


class _Process:
    """One process at a time on one device; another takes the place of one that is killed."""

    def __init__(self, device: str, threads: int) -> None:
        self.device, self.threads = device, threads
        self._pool: ProcessPoolExecutor | None = None
        self._ended = False

    def run(self, t: Trial, placing: Placing) -> Outcome:
        """One trial, which goes on in another process where the first is killed."""
        for _ in range(KILLED):
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    1, get_context("spawn"), initializer=_settle, initargs=(self.threads,)
                )
            try:
                return self._pool.submit(run_trial, t, placing, self.device).result()
            except BrokenProcessPool:
                self._pool.shutdown(wait=True)
                self._pool = None
                if self._ended:
                    raise
        why = "killed from outside, twice (not enough memory for so many --jobs?); the same command goes on"
        return Outcome(None, error=why)

    def end(self, now: bool) -> None:
        """End the process, now or as soon as it has nothing to do."""
        self._ended = True
        pool = self._pool
        if pool is not None:
            if now:
                for process in list((pool._processes or {}).values()):
                    process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)


def visible_devices(placing: Placing) -> list[str]:
    """What the runs may be computed on: every GPU, or the one device that was named."""
    if placing.device not in ("auto", "cuda") or (placing.jobs == 1 and placing.gpus_per_run is None):
        return [placing.device]
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{index}" for index in range(count)] or [placing.device]


def spread(placing: Placing, devices: Sequence[str]) -> list[str]:
    """The device of every run that is computed at the same time.

    Raises:
        UserError: for a share of a GPU where there is none.
    """
    most = placing.jobs
    if placing.gpus_per_run is not None:
        if not all(device.startswith("cuda") for device in devices):
            raise no_gpu(placing.gpus_per_run)
        # Three thirds are one, whatever the digits.
        most = min(most, len(devices) * int(1 / placing.gpus_per_run + 1e-6))
    return [devices[index % len(devices)] for index in range(most)]


def _settle(threads: int) -> None:
    """A worker dies with its parent, however that dies: an orphan would hold the locks of its runs."""
    parent = parent_process()
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the parent ends its workers
    import torch

    torch.set_num_threads(threads)
