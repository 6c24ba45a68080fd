"""The runs of a comparison as tasks of a Ray cluster, where each goes on from its last saved state if its
process or node is lost. Pixels are cached on every node."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from ..errors import UserError
from ..run.ray_cluster import Lost, Needs, RayCluster
from .outcomes import Outcome
from .trials import Trial
from .workers import Placing, Report, run_trial

# Seconds that nodes which others keep busy are waited for, once one node has decoded the test images.
PATIENCE = 30.0


class RayTasks:
    """Runs trials on a Ray cluster.

    Args:
        placing: which, and what a run takes there.
        tell: given a sentence about the cluster.

    Raises:
        UserError: as :class:`~cl_complora.run.ray_cluster.RayCluster`.
    """

    def __init__(self, placing: Placing, tell: Callable[[str], None]) -> None:
        self.placing = placing
        self.cluster = RayCluster(str(placing.cluster), needs_of(placing), tell)
        self._warmed: set[tuple[str, str]] = set()

    def __enter__(self) -> RayTasks:
        self.cluster.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cluster.__exit__(kind, error, trace)

    def run(self, trials: Sequence[Trial], report: Report) -> list[Outcome]:
        """As :meth:`~cl_complora.compare.workers.Workers.run`."""
        self._warm(trials)
        done: dict[int, Outcome] = {}
        for index, found in self.cluster.each(run_trial, [(t, self.placing) for t in trials]):
            if isinstance(found, Lost):
                found = Outcome(None, error=f"lost with its node or process: {found.why}", lost=True)
            elif isinstance(found, UserError):
                found = Outcome(None, error=found.messages[0], refused=True, lost=True)
            done[index] = found
            report(trials[index], found)
        return [done[index] for index in range(len(trials))]

    def _warm(self, trials: Sequence[Trial]) -> None:
        """Have every node decode the test images once, before its runs would do so side by side."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        scenarios = {t.scenario.value.model_dump_json(): t.scenario for t in trials}
        seeds = sorted({t.seed for t in trials})
        threads, tasks = self.cluster.needs.threads, []
        for node in self.cluster.ray.nodes():
            new = [one for key, one in scenarios.items() if (node["NodeID"], key) not in self._warmed]
            has = node["Resources"].get
            if new and node["Alive"] and has("CPU", 0) >= threads and has("GPU", 0) >= self.cluster.share:
                where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                task = self.cluster.remote(_warm, num_cpus=threads, num_gpus=0, scheduling_strategy=where)
                tasks.append(task.remote(new, seeds, os.getcwd()))
                self._warmed |= {(node["NodeID"], key) for key in scenarios}
        if not tasks:
            return
        # A node that is busy with something else takes its task once that has ended: it is not waited for
        # much longer than the first one needed. What a node could not do, a run of it tells.
        began = time.perf_counter()
        self.cluster.ray.wait(tasks, num_returns=1)
        patience = max(PATIENCE, time.perf_counter() - began)
        _, late = self.cluster.ray.wait(tasks, num_returns=len(tasks), timeout=patience)
        for one in late:
            self.cluster.ray.cancel(one, force=False)


def needs_of(placing: Placing) -> Needs:
    """What a run takes of a node."""
    return Needs(
        what="a run",
        device=placing.device,
        threads=placing.threads_of_run(),
        gpus=placing.gpus_per_run,
        folder=placing.out,
        option="--out",
        cure="lower --threads (or raise --jobs) and --gpus-per-run, or say --device cpu",
        instead="--list",
    )


def _warm(scenarios: Sequence[Any], seeds: Sequence[int], folder: str) -> int:
    from .warming import warm_pixels

    os.chdir(folder)
    return warm_pixels(scenarios, seeds)
