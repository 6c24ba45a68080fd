"""Which kind of workers computes the runs of a comparison, and that none is started for runs that are
there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from ..errors import UserError
from .found_finished import FoundFinished
from .outcomes import Outcome
from .plan_store import PlanStore
from .processes import Processes
from .ray_tasks import RayTasks
from .trials import Trial
from .workers import Placing, Report, Workers


def open_workers(
    placing: Placing, tell: Callable[[str], None] | None = None, plans: PlanStore | None = None
) -> Workers:
    """Processes of this machine, or a cluster; opened with the first run that is missing.

    Args:
        placing: which, and how.
        tell: given sentences about what is used.
        plans: of the trials, where some are made already.

    Raises:
        UserError: for what cannot be; what is not there is told when it is needed.
    """
    share = placing.gpus_per_run
    if share is not None and not 0 < share <= 1:
        raise UserError(f"--gpus-per-run {share:g}: must be greater than 0 and at most 1: a run uses one GPU")
    return _OpenedWhenNeeded(placing, tell or (lambda sentence: None), plans)


class _OpenedWhenNeeded:
    """Answers what is there by itself, and has workers run the rest."""

    def __init__(self, placing: Placing, tell: Callable[[str], None], plans: PlanStore | None) -> None:
        self.placing, self._tell = placing, tell
        self._finished = FoundFinished(placing.out, plans)
        self._opened: Workers | None = None

    def __enter__(self) -> _OpenedWhenNeeded:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._opened is not None:
            self._opened.__exit__(kind, error, trace)

    def run(self, trials: Sequence[Trial], report: Report) -> list[Outcome]:
        """As :meth:`~cl_complora.compare.workers.Workers.run`.

        Raises:
            UserError: before anything is run, for every run that was made with something else.
        """
        found = [self._finished.outcome(t) for t in trials]
        missing = [t for t, outcome in zip(trials, found, strict=True) if outcome is None]
        # Or the others would take hours before these are refused.
        self._finished.folders.check_all(missing)
        workers = self._workers() if missing else None
        for t, outcome in zip(trials, found, strict=True):
            if outcome is not None:
                report(t, outcome)
        ran = iter(workers.run(missing, report) if workers else ())
        return [next(ran) if outcome is None else outcome for outcome in found]

    def _workers(self) -> Workers:
        if self._opened is None:
            cluster = self.placing.cluster is not None
            kind = RayTasks(self.placing, self._tell) if cluster else Processes(self.placing, tell=self._tell)
            self._opened = kind.__enter__()
        return self._opened
