"""What became of a trial, now or in an earlier process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.telling import counted
from ..errors import UserError
from ..store.folder import RunDir
from .by_image import Kept
from .trial_words import of_trials
from .trials import Trial


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        results: content of results.json, or None where the run failed.
        updates: size and overlaps of every task's update (of test runs only).
        kept: metric → set → which of its images or queries the last state got right (:data:`.by_image.Kept`);
            without those of which no answers are recorded (of test runs only).
        error: what went wrong.
        seconds: time that it took now; next to none where it was there already.
        reused: whether it was there already.
        refused: whether it went wrong before anything was begun: the input is at fault, not the training.
            Where it is not lost as well, the strategy does not fit the scenario or the model, or needs a
            package that is not here.
        lost: whether it went wrong without a failure of its training: killed, in use elsewhere, a full disk.
            The same again may well end otherwise.
    """

    results: dict[str, Any] | None
    updates: list[dict[str, float | None]] | None = None
    kept: dict[str, Kept] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0
    reused: bool = False
    refused: bool = False
    lost: bool = False

    def told(self) -> str:
        """For people: ``Last 61.2, general -1.4 · 12 s``."""
        if self.results is None:
            return str(self.error)
        retained = "".join(f", {name} {points:+.1f}" for name, points in self.results["retention"].items())
        took = "found finished" if self.reused else f"{self.seconds:.0f} s"
        return f"Last {100 * self.results['last']:.1f}{retained} · {took}"


def refuse_without(
    what: str, trials: Sequence[Trial], outcomes: Iterable[Outcome], undone: str = "chosen"
) -> None:
    """Choose nothing, and write no table, while runs are lost.

    Args:
        what: lacks them: ``the sweep``.
        trials: that were asked for.
        outcomes: of each of them.
        undone: what nothing is without them.

    Raises:
        UserError: naming every run that was lost.
    """
    lost = [(t, o) for t, o in zip(trials, outcomes, strict=True) if o.lost]
    if lost:
        # One reason for all of them is one of the whole command, and not of what could go on.
        reasons = {str(o.error) for _, o in lost}
        if len(lost) == len(trials) and len(reasons) == 1 and all(o.refused for _, o in lost):
            raise UserError(reasons.pop())
        # To choose among the others would take another value than the same command takes tomorrow, and a
        # table of the others would take the place of a whole one.
        raise UserError(
            f"{what} lacks {counted(len(lost), 'run')}, without which nothing is {undone}; the same"
            " command goes on with what is there",
            tuple(f"{t.label()}: {o.error}" for t, o in lost),
        )


def folder_of(t: Trial, out: Path) -> RunDir:
    """The folder of a trial's run.

    Args:
        out: folder of all runs.
    """
    return RunDir.of(out, t.scenario.value.name, t.strategy.value.name, t.seed, t.variant)


def is_done(t: Trial, out: Path) -> bool:
    """Whether a trial is there, whole."""
    return (found := outcome_there(t, out)) is not None and found.results is not None


def outcome_there(t: Trial, out: Path) -> Outcome | None:
    """What a trial left, by itself; None where it was not run to its end.

    Whether it was made with what the trial asks for is another question (:mod:`.trial_folders`).
    """
    folder = folder_of(t, out)
    try:
        results = folder.read_results()
    except UserError:  # damaged, and made again
        return None
    if results is not None and results["status"] == "done":
        return Outcome(results, reused=True)
    failure = folder.read_failure()
    return None if failure is None else Outcome(None, error=of_trials(failure), reused=True)
