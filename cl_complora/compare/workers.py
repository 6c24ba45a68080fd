"""Several runs at once in processes that share the cores out instead of fighting over them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import UserError
from ..store.folder import RunDir
from .by_image import Kept, kept_by
from .trials import Trial


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        results: content of results.json, or None where the run failed.
        updates: size and overlaps of every task's update (of test runs only).
        kept: metric → set → keys of its images or queries, and which of them the last state got right;
            without those of which no answers are recorded (of test runs only).
        error: what went wrong.
        seconds: time that it took now; next to none where it was there already.
        reused: whether it was there already.
        refused: whether it went wrong before anything was begun: the input is at fault, not the training.
    """

    results: dict[str, Any] | None
    updates: list[dict[str, float | None]] | None = None
    kept: dict[str, Kept] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0
    reused: bool = False
    refused: bool = False

    def told(self) -> str:
        """For people: ``Last 61.2, general -1.4 · 12 s``."""
        if self.results is None:
            return str(self.error)
        retained = "".join(f", {name} {points:+.1f}" for name, points in self.results["retention"].items())
        took = "found finished" if self.reused else f"{self.seconds:.0f} s"
        return f"Last {100 * self.results['last']:.1f}{retained} · {took}"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Processes that run trials; made once for a comparison, since each takes seconds to import what it
    needs.

    Args:
        jobs: processes; each has its share of the cores.
        out: folder of all runs.
        device, allow_plugins: as for ``run``.
    """

    def __init__(self, jobs: int, out: Path, device: str, allow_plugins: bool) -> None:
        self.out, self.device, self.allow_plugins = out, device, allow_plugins
        self.threads = max(1, cores() // jobs)
        # torch reads this when a worker loads it; the number set later does not reach all of its libraries.
        self._before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        self._pool = ProcessPoolExecutor(
            jobs, get_context("spawn"), initializer=_settle, initargs=(self.threads,)
        )

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)
        os.environ.pop("OMP_NUM_THREADS")
        if self._before is not None:
            os.environ["OMP_NUM_THREADS"] = self._before

    def run(self, trials: Sequence[Trial], report: Callable[[Trial, Outcome], None]) -> list[Outcome]:
        """Run what is missing, go on with what was cut off, read what is done.

        Args:
            trials: what to run.
            report: told of every finished trial.

        Returns:
            The outcomes in the order of the trials.

        Raises:
            UserError: if a process was killed.
        """
        done: dict[int, Outcome] = {}
        try:
            waiting = {
                self._pool.submit(_run, t, self.out, self.device, self.allow_plugins): index
                for index, t in enumerate(trials)
            }
            for future in as_completed(waiting):
                index = waiting[future]
                done[index] = future.result()
                report(trials[index], done[index])
        except BrokenProcessPool:
            raise UserError(
                "a run was killed from outside (not enough memory for so many --jobs?); the same command"
                " goes on"
            ) from None
        return [done[index] for index in range(len(trials))]


def _settle(threads: int) -> None:
    """A worker dies with its parent, however that dies: an orphan would hold the locks of its runs."""
    parent = parent_process()
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the parent ends its workers
    import torch

    torch.set_num_threads(threads)


def _run(t: Trial, out: Path, device: str, allow_plugins: bool) -> Outcome:
    from ..run.stream import run
    from .updates import measure_updates

    folder = RunDir.of(out, t.scenario.value.name, t.strategy.value.name, t.seed, t.variant)
    try:
        options = {"allow_plugins": allow_plugins, "variant": t.variant, "analysis": not t.validation}
        finished = run(t.scenario, t.strategy, t.seed, out, device, **options)
        updates = None if t.validation else measure_updates(finished.folder, t.scenario)
    except UserError as error:
        return Outcome(None, error="; ".join(error.messages), refused=not folder.config.exists())
    reused = finished.reused == len(finished.results["tasks"])
    kept = {} if t.validation else kept_by(folder, finished.results)
    return Outcome(finished.results, updates, kept, None, finished.seconds, reused)
