"""Several runs at once in processes of this machine, which share cores and GPUs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from ..run.devices import no_gpu, visible_gpus
from ..run.worker_processes import Ended, WorkerProcesses
from .outcomes import Outcome
from .trials import Trial
from .workers import Placing, Report, run_trial


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
        self.threads = placing.threads_of_run(len(places))
        self._workers = WorkerProcesses(places, self.threads)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._workers.__exit__(kind, error, trace)

    def run(self, trials: Sequence[Trial], report: Report) -> list[Outcome]:
        """As :meth:`~cl_complora.compare.workers.Workers.run`."""
        done: dict[int, Outcome] = {}
        for index, found in self._workers.each(run_trial, [(t, self.placing) for t in trials]):
            done[index] = _lost(found) if isinstance(found, Ended) else found
            report(trials[index], done[index])
        return [done[index] for index in range(len(trials))]


def _lost(ended: Ended) -> Outcome:
    if ended.starting:
        return Outcome(None, error=ended.why, refused=True, lost=True)
    memory = " (not enough memory for so many --jobs?)" if ended.killed else ""
    return Outcome(None, error=f"{ended.why}, twice{memory}; the same command goes on", lost=True)


def visible_devices(placing: Placing) -> list[str]:
    """What the runs may be computed on: every GPU, or the one device that was named."""
    if placing.device not in ("auto", "cuda") or (placing.jobs == 1 and placing.gpus_per_run is None):
        return [placing.device]
    return visible_gpus() or [placing.device]


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
