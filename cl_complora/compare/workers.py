"""Where the runs of a comparison are computed: a comparison knows no more of it than this interface."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from ..errors import UserError, reason
from ..run.failures import DoesNotFit
from ..run.worker_processes import cores
from .by_image import kept_by
from .found_finished import note_checked
from .outcomes import Outcome, folder_of
from .trial_words import of_trials
from .trials import Trial

Report = Callable[[Trial, Outcome], None]


@dataclass(frozen=True)
class Placing:
    """Where and how runs are computed.

    Attributes:
        out: folder of all runs.
        jobs: runs at a time; on a cluster, at a time on a node like this machine.
        device, allow_plugins, elsewhere: as for ``run``.
        threads: of every run; its share of the cores where None.
        gpus_per_run: share of a GPU that a run takes; None to share the GPUs out among the runs.
        cluster: address of a Ray cluster, or ``auto``; None for processes of this machine.
    """

    out: Path = Path("runs")
    jobs: int = 1
    device: str = "auto"
    allow_plugins: bool = False
    elsewhere: bool = False
    threads: int | None = None
    gpus_per_run: float | None = None
    cluster: str | None = None

    def threads_of_run(self, together: int | None = None) -> int:
        """Threads of every run: what was asked for, or its share of the cores, and no more than
        ``OMP_NUM_THREADS`` allows.

        Args:
            together: how many there are at a time; ``jobs`` where None.
        """
        allowed = os.environ.get("OMP_NUM_THREADS", "")
        share = max(1, cores() // (together or self.jobs))
        return self.threads or (min(share, int(allowed) or share) if allowed.isdecimal() else share)


class Workers(Protocol):
    """Runs trials somewhere; made once for a comparison, since it takes seconds to import what is needed.

    What ends from outside (a killed process, a lost node) costs its run another try, and not the comparison;
    what a user can mend is not tried again.
    """

    placing: Placing

    def __enter__(self) -> Workers: ...

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self, trials: Sequence[Trial], report: Report) -> list[Outcome]:
        """Run what is missing, go on with what was cut off, read what is done.

        Args:
            trials: what to run.
            report: told of every finished trial.

        Returns:
            The outcomes in the order of the trials.
        """


def run_trial(t: Trial, placing: Placing, device: str) -> Outcome:
    """One trial, in this process.

    Args:
        device: its own.
    """
    from ..run.stream import run
    from .updates import measure_updates

    folder = folder_of(t, placing.out)
    try:
        options = {"allow_plugins": placing.allow_plugins, "elsewhere": placing.elsewhere}
        options |= {"variant": t.variant, "analysis": not t.validation}
        finished = run(t.scenario, t.strategy, t.seed, placing.out, device, **options)
        updates = None if t.validation else measure_updates(finished.folder, t.scenario)
        note_checked(t, folder)
    except UserError as error:
        # Code of the user's own may be there next time, and allowed.
        told, unfit = "; ".join(error.messages), isinstance(error, DoesNotFit) and not t.strategy.value.plugin
        refused = unfit or not folder.config.exists()
        # What is recorded may be an earlier failure, of a run that is refused now.
        lost = not unfit and folder.read_failure() != told
        return Outcome(None, error=of_trials(told), refused=refused, lost=lost)
    except Exception as error:  # a fault of ours or of a library's costs this run, and not the others
        traceback.print_exc()
        return Outcome(None, error=reason(error), lost=True)
    reused = finished.reused == len(finished.results["tasks"])
    kept = {} if t.validation else kept_by(folder, finished.results)
    return Outcome(finished.results, updates, kept, None, finished.seconds, reused)
