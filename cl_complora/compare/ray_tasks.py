"""The runs of a comparison as tasks of a Ray cluster, which decides where and when each is computed.

Tasks get settings and give outcomes; models and images are read by every node from the folder that all of
them share, and pixels are cached on each. A task whose process or node is lost is given to another one, where
the run goes on from its last saved state.
"""

from __future__ import annotations

import os
import platform
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import UserError
from ..run.spinning import spinning
from .outcomes import Outcome
from .trials import Trial
from .workers import Placing, Report, cores, no_gpu, run_trial

# How often a run is given to another process or node after its own was lost.
RETRIES = 3
# Bytes of the object store of a Ray that is started here: outcomes have kilobytes, and Ray's own default is
# 30 % of the memory.
STORE = 200 * 2**20
# Seconds that a shared folder may need to show a new file on another machine.
SHOWN = 30.0
# Seconds within which a head node takes a connection.
ANSWERS = 10.0


class RayTasks:
    """Runs trials on a Ray cluster.

    Args:
        placing: which, and what a run takes there.
        tell: given a sentence about the cluster.

    Raises:
        UserError: where Ray is not installed, the cluster is not there, or none of its nodes is large enough
            for a run (Ray itself would wait for ever).
    """

    def __init__(self, placing: Placing, tell: Callable[[str], None]) -> None:
        self._ray = _import_ray(placing.cluster)
        if placing.device.startswith("cuda:"):
            raise UserError(f"--device {placing.device}: on a cluster Ray chooses the GPU; say cuda")
        self.placing = placing
        self.threads = placing.threads_of_run()
        self._ours = not self._ray.is_initialized()
        if self._ours:
            _connect(self._ray, placing.cluster)
        try:
            nodes = [node for node in self._ray.nodes() if node["Alive"]]
            self.share = gpu_share(placing, [node["Resources"] for node in nodes])
            refuse_infeasible(self.threads, self.share, [node["Resources"] for node in nodes])
        except UserError:
            self._disconnect()
            raise
        tell(_described(self._ray.__version__, nodes, self.threads, self.share))
        self._warmed: set[tuple[str, str]] = set()
        self._marker = placing.out / f".shared-{secrets.token_hex(8)}"

    def __enter__(self) -> RayTasks:
        self.placing.out.mkdir(parents=True, exist_ok=True)
        self._marker.touch()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._marker.unlink(missing_ok=True)
        self._disconnect()

    def run(self, trials: Sequence[Trial], report: Report) -> list[Outcome]:
        """As :meth:`~cl_complora.compare.workers.Workers.run`."""
        from ray.exceptions import RayError, RayTaskError

        from ..run.signals import Stopped

        self._warm(trials)
        device = "cpu" if self.share == 0 else "cuda"
        # A node that is drained asks its processes to stop: they save, and go on elsewhere.
        task = self._remote(_run, max_retries=RETRIES, retry_exceptions=[Stopped], num_cpus=self.threads)
        here = os.getcwd()
        waiting = {
            task.remote(t, self.placing, device, self.threads, here, self._marker.name): index
            for index, t in enumerate(trials)
        }
        done: dict[int, Outcome] = {}
        try:
            while waiting:
                (ready,), _ = self._ray.wait(list(waiting), num_returns=1)
                index = waiting.pop(ready)
                try:
                    done[index] = self._ray.get(ready)
                except RayTaskError:  # a fault of the program
                    raise
                except RayError as error:
                    why = (str(error).strip().splitlines() or [type(error).__name__])[0]
                    done[index] = Outcome(None, error=f"lost with its node or process: {why}")
                report(trials[index], done[index])
        finally:
            for one in waiting:
                self._ray.cancel(one, force=True)
        return [done[index] for index in range(len(trials))]

    def _warm(self, trials: Sequence[Trial]) -> None:
        """Have every node decode the test images once, before its runs would do so side by side."""
        from ray.exceptions import RayError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        scenarios = {t.scenario.value.model_dump_json(): t.scenario for t in trials}
        seeds = sorted({t.seed for t in trials})
        tasks = []
        for node in self._ray.nodes():
            new = [one for key, one in scenarios.items() if (node["NodeID"], key) not in self._warmed]
            if new and node["Alive"] and node["Resources"].get("CPU", 0) >= self.threads:
                where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                task = self._remote(_warm, num_cpus=self.threads, num_gpus=0, scheduling_strategy=where)
                tasks.append(task.remote(new, seeds, os.getcwd()))
                self._warmed |= {(node["NodeID"], key) for key in scenarios}
        for one in tasks:
            try:
                self._ray.get(one)
            except RayError:  # a run of that node tells why, or it is lost
                continue

    def _remote(self, function: Callable, **options: Any) -> Any:
        # A worker begins with these, before it loads torch.
        environment = {"env_vars": environment_of(self.threads)}
        return self._ray.remote(function).options(
            **{"num_gpus": self.share, "runtime_env": environment, **options}
        )

    def _disconnect(self) -> None:
        if self._ours:
            self._ray.shutdown()


def environment_of(threads: int) -> dict[str, str]:
    """Environment of a worker that computes with so many threads."""
    return {"OMP_NUM_THREADS": str(threads), **spinning()}


def gpu_share(placing: Placing, nodes: Sequence[Mapping[str, float]]) -> float:
    """Share of a GPU that a run takes; 0 where it is computed on the CPU.

    Args:
        nodes: resources of each.

    Raises:
        UserError: for a share where there is no GPU.
    """
    there = any(node.get("GPU", 0) > 0 for node in nodes)
    if placing.device == "cuda" or (placing.device == "auto" and there):
        return 1.0 if placing.gpus_per_run is None else placing.gpus_per_run
    if placing.gpus_per_run is not None:
        raise no_gpu(placing.gpus_per_run)
    return 0.0


def refuse_infeasible(threads: int, share: float, nodes: Sequence[Mapping[str, float]]) -> None:
    """Refuse what no node of the cluster can ever run.

    Args:
        threads, share: what a run takes, in CPUs and GPUs.
        nodes: resources of each.

    Raises:
        UserError: naming what is missing.
    """
    if any(node.get("CPU", 0) >= threads and node.get("GPU", 0) >= share for node in nodes):
        return
    there = ", ".join(f"{n.get('CPU', 0):g} CPUs and {n.get('GPU', 0):g} GPUs" for n in nodes)
    raise UserError(
        f"--cluster: a run takes {threads} CPUs and {share:g} GPUs of one node, which none has ({there});"
        " lower --threads (or raise --jobs) and --gpus-per-run, or say --device cpu"
    )


def _import_ray(address: str | None) -> Any:
    try:
        import ray
    except ImportError:
        raise UserError(
            f"--cluster {address}: needs Ray, which is not installed: pip install 'cl_complora[cluster]' (on"
            " every node, with the same versions of Python, Ray and this package); without it, see --list"
        ) from None
    return ray


def refuse_silent(address: str) -> None:
    """Refuse an address where nobody listens, for which Ray itself looks for two minutes.

    Raises:
        UserError: saying why.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isascii() and port.isdigit()):
        raise UserError(f"--cluster {address}: must be auto, or an address such as 10.0.0.5:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"--cluster {address}: nobody listens there ({error}); 'ray status' on the head node says whether"
            " it runs"
        ) from None


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address != "auto":
            refuse_silent(str(address))
            ray.init(address, **quiet)
            return
        try:
            ray.init("auto", **quiet)
        except ConnectionError:  # there is none: this machine alone
            ray.init("local", num_cpus=cores(), object_store_memory=STORE, include_dashboard=False, **quiet)
    # Ray raises many kinds for an address that is none, a cluster that is gone and other versions.
    except (ConnectionError, ValueError, RuntimeError, OSError, AssertionError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"--cluster {address}: {why or type(error).__name__}") from None


def _described(version: str, nodes: Sequence[Mapping[str, Any]], threads: int, share: float) -> str:
    total = {
        name: sum(node["Resources"].get(name, 0) for node in nodes)
        for name in ("CPU", "GPU", "object_store_memory")
    }
    return (
        f"Ray {version}: {len(nodes)} nodes, {total['CPU']:g} CPUs, {total['GPU']:g} GPUs, object store of"
        f" {total['object_store_memory'] / 1e9:.1f} GB; a run takes {threads} CPUs and {share:g} GPUs"
    )


def _run(t: Trial, placing: Placing, device: str, threads: int, folder: str, marker: str) -> Outcome:
    """One trial, on whatever node this is."""
    import torch

    try:
        _enter_shared(folder, placing.out / marker)
    except UserError as error:
        return Outcome(None, error=error.messages[0], refused=True)
    torch.set_num_threads(threads)
    return run_trial(t, placing, device)


def _warm(scenarios: Sequence[Any], seeds: Sequence[int], folder: str) -> int:
    from .warming import warm_pixels

    os.chdir(folder)
    return warm_pixels(scenarios, seeds)


def _enter_shared(folder: str, marker: Path) -> None:
    """Go to the folder that the comparison was started in.

    Raises:
        UserError: if this node does not share it.
    """
    end = time.monotonic() + SHOWN
    while True:
        try:
            os.chdir(folder)
            if marker.exists():
                return
        except OSError:
            pass
        if time.monotonic() > end:
            raise UserError(
                f"{platform.node()}: does not show {folder} and --out {marker.parent} as the node that"
                " compares does; a cluster's nodes need a folder that they share"
            )
        time.sleep(0.5)
