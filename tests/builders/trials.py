"""Trials of comparisons in the process of the test, and outcomes of trials that nobody ran."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from cl_complora.compare import tuning
from cl_complora.compare.outcomes import Outcome
from cl_complora.compare.trials import Trial
from cl_complora.compare.tuning import Tuning, TuningRequest, prepare, tune
from cl_complora.compare.workers import Placing


class Here:
    """A pool of processes that is none: what is submitted runs at once."""

    def __init__(self, *arguments: object, **options: object) -> None:
        self._processes: dict = {}

    def submit(self, target: Callable, *arguments: object) -> Future:
        done: Future = Future()
        done.set_result(target(*arguments))
        return done

    def shutdown(self, **options: object) -> None:
        """Nothing to end."""


def outcome(
    last: float,
    retention: float | None = None,
    seconds: float = 60.0,
    steps: int = 40,
    error: str | None = None,
    lost: bool = False,
) -> Outcome:
    """Of a trial of one task that was trained for half of its seconds and measured for the other half.

    Args:
        last, retention: in percent and points; None for no zero-shot set.
    """
    if error is not None:
        return Outcome(None, error=error, lost=lost)
    detail = {"steps": steps, "train_seconds": seconds / 2, "eval_seconds": seconds / 2}
    results = {
        "last": last / 100,
        "average": last / 100,
        "retention": {} if retention is None else {"held out": retention},
        "zero_shot": {} if retention is None else {"held out": [0.5, 0.5 + retention / 100]},
        "tasks_detail": [detail],
    }
    return Outcome(results, seconds=seconds)


class Answering:
    """Stands in for ``open_workers``: every trial has the outcome that a function of its settings gives.

    Attributes:
        now: what a clock would show, in seconds; every trial takes its time.
        tried: settings of all trials, in order.
    """

    def __init__(self, answer: Callable[[dict[str, float]], Outcome]) -> None:
        self.answer, self.now, self.tried = answer, 0.0, []

    def __call__(self, placing: Placing) -> Answering:
        self.placing = placing
        return self

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to end."""

    def run(self, trials: Sequence[Trial], report: Callable[[Trial, Outcome], None]) -> list[Outcome]:
        found = []
        for one in trials:
            self.tried.append(dict(one.settings))
            found.append(self.answer(dict(one.settings)))
            self.now += found[-1].seconds / self.placing.jobs
            report(one, found[-1])
        return found


def killed(t: Trial, placing: Placing, device: str) -> Outcome:
    """Stands in for ``run_trial``: a process that is killed, for the method ``once`` the first time only."""
    tries = placing.out / f"{t.method}{t.seed}"
    with tries.open("a") as file:
        file.write(f"{device}\n")
    if t.method == "always" or (t.method == "once" and len(tries.read_text().split()) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(None, error=f"{t.method} {t.seed} on {device}")


def tuned(monkeypatch, request: TuningRequest, answer, jobs: int = 1) -> tuple[Tuning, Answering]:
    """A search among trials that have the outcomes of a function."""
    found, answering = prepare(request), Answering(answer)
    monkeypatch.setattr(tuning, "open_workers", answering)
    tune(found, Path("nowhere"), jobs, clock=lambda: answering.now)
    return found, answering
