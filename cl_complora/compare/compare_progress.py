"""What a comparison says while it works: its plan at once, runs that end and go on, time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..data.telling import counted

if TYPE_CHECKING:
    from .outcomes import Outcome
    from .study import Request
    from .trials import Trial


class CompareProgress:
    """Lines of a comparison.

    Args:
        request: what is compared.
        jobs: runs at a time; None where a cluster decides.
        say: given every line.
    """

    def __init__(self, request: Request, jobs: int | None, say: Callable[[str], None]) -> None:
        self.request, self.jobs, self.say = request, jobs, say
        self.waiting: list[str] = []
        self.began = time.perf_counter()
        self.worked = 0

    def plan(self) -> None:
        """What will be run; said before anything is imported that takes long."""
        methods, seeds = len(self.request.strategies), len(self.request.seeds)
        told = f"{counted(methods * seeds, 'run')}: {counted(methods, 'method')} × {counted(seeds, 'seed')}"
        if self.request.sweep is not None:
            told += ", after a sweep on validation shots that chooses their settings"
        if self.jobs is not None:
            told += f", {self.jobs} at a time"
        self.say(f"{self.request.scenario}: {told}; finished runs are reused")

    def begins(self, trials: Sequence[Trial]) -> None:
        """A stage begins, of the sweep or of the tests.

        Args:
            trials: of it, less those that are published.
        """
        self.waiting = [] if not trials or trials[0].validation else [_name(t) for t in trials]
        if self.waiting and self.jobs is not None:
            self.say(f"begins with {', '.join(self.waiting[: self.jobs])}")

    def report(self, trial: Trial, outcome: Outcome, done: int, total: int) -> None:
        """A run ended."""
        line = f"{done:3}/{total} {trial.label()}: {outcome.told()}"
        if not outcome.reused:
            self.worked += 1
        if done < total and self.worked:
            left = (time.perf_counter() - self.began) / self.worked * (total - done)
            line += f" · about {_duration(left)} left"
        if _name(trial) in self.waiting:
            self.waiting.remove(_name(trial))
            if self.waiting and self.jobs is not None and not outcome.reused:
                line += f"; now {', '.join(self.waiting[: self.jobs])}"
        self.say(line)


def _name(trial: Trial) -> str:
    return f"{trial.method} · seed {trial.seed}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
