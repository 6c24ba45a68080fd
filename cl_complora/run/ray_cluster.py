"""A Ray cluster that is given tasks: where each is computed and when is Ray's to decide.

Tasks get paths and settings and give outcomes; models and images are read by every node from the folder that
all of them share. A task whose process or node is lost is given to another one.
"""

from __future__ import annotations

import os
import platform
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import UserError
from .devices import no_gpu
from .spinning import spinning
from .worker_processes import cores

# How often a task is given to another process or node after its own was lost.
RETRIES = 3
# Bytes of the object store of a Ray that is started here: outcomes have kilobytes, and Ray's own default is
# 30 % of the memory.
STORE = 200 * 2**20
# Seconds that a shared folder may need to show a new file on another machine.
SHOWN = 30.0
# Seconds within which a head node takes a connection.
ANSWERS = 10.0
_PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True)
class Needs:
    """What every task of a cluster takes, and how that is told.

    Attributes:
        what: is computed by a task: ``a run``.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: of a task.
        gpus: share of a GPU; None for a whole one where it is computed on a GPU.
        folder: that all nodes have to show.
        option: that names the folder.
        cure: what a user can do where no node is large enough.
        instead: option for who has no Ray.
    """

    what: str
    device: str
    threads: int
    gpus: float | None
    folder: Path
    option: str
    cure: str
    instead: str


class Drained(Exception):
    """A task that was asked to stop: Ray takes a ``KeyboardInterrupt`` for a task that it cancelled itself,
    and gives that to no other process."""


@dataclass(frozen=True)
class Lost:
    """What is known of a task whose nodes or processes were lost, again and again."""

    why: str


def _of_the_node(error: Exception) -> Lost | None:
    """What an error that a task ended with says of its node; None where it is of what it computed.

    Raises:
        UserError: for a node that lacks this package.
    """
    if isinstance(error, Drained):
        return Lost("every node that it was given to was asked to stop")
    lines = str(error).strip().splitlines()
    missing = next((line for line in lines if f"No module named '{_PACKAGE}" in line), None)
    if missing is not None:
        raise UserError(
            f"--cluster: a node cannot load this package ({missing.strip()}); every node needs the same"
            " versions of Python, of Ray and of this package, such as one environment in a shared folder"
        )
    return None


class RayCluster:
    """A connection to a cluster, for ``with``.

    Args:
        address: of its head node, or ``auto``.
        needs: of every task.
        tell: given a sentence about the cluster.

    Attributes:
        share: of a GPU that a task takes; 0 where it is computed on the CPU.
        device: that a task computes on.

    Raises:
        UserError: where Ray is not installed, the cluster is not there, or none of its nodes is large enough
            for a task (Ray itself would wait for ever).
    """

    def __init__(self, address: str, needs: Needs, tell: Callable[[str], None]) -> None:
        self.ray = _import_ray(address, needs.instead)
        if needs.device.startswith("cuda:"):
            raise UserError(f"--device {needs.device}: on a cluster Ray chooses the GPU; say cuda")
        self.needs = needs
        self._ours = not self.ray.is_initialized()
        if self._ours:
            _connect(self.ray, address)
        try:
            nodes = [node for node in self.ray.nodes() if node["Alive"]]
            self.share = gpu_share(needs, [node["Resources"] for node in nodes])
            refuse_infeasible(needs, self.share, [node["Resources"] for node in nodes])
        except UserError:
            self._disconnect()
            raise
        self.device = "cpu" if self.share == 0 else "cuda"
        tell(_described(self.ray.__version__, nodes, needs, self.share))
        self._marker = needs.folder / f".shared-{secrets.token_hex(8)}"

    def __enter__(self) -> RayCluster:
        self.needs.folder.mkdir(parents=True, exist_ok=True)
        self._marker.touch()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._marker.unlink(missing_ok=True)
        self._disconnect()

    def each(self, job: Callable[..., Any], arguments: Sequence[tuple]) -> Iterator[tuple[int, Any]]:
        """Do one job with every tuple of arguments, as tasks.

        Args:
            job: a function of a module; called with the arguments and :attr:`device`, in the folder that this
                process is in. An error of it ends everything, but for
                :class:`~cl_complora.run.signals.Stopped`, which goes to another process.
            arguments: as many as there are tasks.

        Yields:
            Place of the arguments and what the job returned, as they come; :class:`Lost` where its processes
            or nodes were lost. A node that does not show the folder gives a :class:`UserError`.
        """
        from ray.exceptions import RayError, RayTaskError

        # A node that is drained asks its processes to stop: they save, and go on elsewhere.
        task = self.remote(_do, max_retries=RETRIES, retry_exceptions=[Drained], num_cpus=self.needs.threads)
        place = (self.needs.threads, os.getcwd(), self._marker, self.needs.option)
        waiting = {
            task.remote(job, (*one, self.device), *place): index for index, one in enumerate(arguments)
        }
        try:
            while waiting:
                (ready,), _ = self.ray.wait(list(waiting), num_returns=1)
                index = waiting.pop(ready)
                try:
                    found = self.ray.get(ready)
                except RayTaskError as error:
                    found = _of_the_node(error)
                    if found is None:  # a fault of the program
                        raise
                except RayError as error:
                    found = Lost((str(error).strip().splitlines() or [type(error).__name__])[0])
                yield index, found
        finally:
            for one in waiting:
                self.ray.cancel(one, force=True)

    def remote(self, function: Callable, **options: Any) -> Any:
        """A function as a task of the cluster, with Ray's own options."""
        # A worker begins with these, before it loads torch.
        environment = {"env_vars": environment_of(self.needs.threads)}
        return self.ray.remote(function).options(
            **{"num_gpus": self.share, "runtime_env": environment, **options}
        )

    def _disconnect(self) -> None:
        if self._ours:
            self.ray.shutdown()


def environment_of(threads: int) -> dict[str, str]:
    """Environment of a worker that computes with so many threads."""
    return {"OMP_NUM_THREADS": str(threads), **spinning()}


def gpu_share(needs: Needs, nodes: Sequence[Mapping[str, float]]) -> float:
    """Share of a GPU that a task takes; 0 where it is computed on the CPU.

    Args:
        needs: of a task.
        nodes: resources of each.

    Raises:
        UserError: for a share where there is no GPU.
    """
    there = any(node.get("GPU", 0) > 0 for node in nodes)
    if needs.device == "cuda" or (needs.device == "auto" and there):
        return 1.0 if needs.gpus is None else needs.gpus
    if needs.gpus is not None:
        raise no_gpu(needs.gpus)
    return 0.0


def refuse_infeasible(needs: Needs, share: float, nodes: Sequence[Mapping[str, float]]) -> None:
    """Refuse what no node of the cluster can ever compute.

    Args:
        needs: of a task.
        share: of a GPU.
        nodes: resources of each.

    Raises:
        UserError: naming what is missing.
    """
    if any(node.get("CPU", 0) >= needs.threads and node.get("GPU", 0) >= share for node in nodes):
        return
    there = ", ".join(f"{n.get('CPU', 0):g} CPUs and {n.get('GPU', 0):g} GPUs" for n in nodes)
    raise UserError(
        f"--cluster: {needs.what} takes {needs.threads} CPUs and {share:g} GPUs of one node, which none has"
        f" ({there}); {needs.cure}"
    )


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


def _import_ray(address: str, instead: str) -> Any:
    try:
        import ray
    except ImportError:
        raise UserError(
            f"--cluster {address}: needs Ray, which is not installed: pip install 'cl_complora[cluster]' (on"
            f" every node, with the same versions of Python, Ray and this package); without it, see {instead}"
        ) from None
    return ray


def _connect(ray: Any, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address != "auto":
            refuse_silent(address)
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


def _described(version: str, nodes: Sequence[Mapping[str, Any]], needs: Needs, share: float) -> str:
    total = {
        name: sum(node["Resources"].get(name, 0) for node in nodes)
        for name in ("CPU", "GPU", "object_store_memory")
    }
    return (
        f"Ray {version}: {len(nodes)} nodes, {total['CPU']:g} CPUs, {total['GPU']:g} GPUs, object store of"
        f" {total['object_store_memory'] / 1e9:.1f} GB; {needs.what} takes {needs.threads} CPUs and"
        f" {share:g} GPUs"
    )


def _do(
    job: Callable[..., Any], arguments: tuple, threads: int, folder: str, marker: Path, option: str
) -> Any:
    """One task, on whatever node this is."""
    import torch

    from .signals import Stopped

    try:
        _enter_shared(folder, marker, option)
    except UserError as error:
        return error
    torch.set_num_threads(threads)
    try:
        return job(*arguments)
    except Stopped as stopped:
        raise Drained(str(stopped)) from None


def _enter_shared(folder: str, marker: Path, option: str) -> None:
    """Go to the folder that the command was started in.

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
                f"{platform.node()}: does not show {folder} and {option} {marker.parent} as the node that the"
                " command was started on does; a cluster's nodes need a folder that they share"
            )
        time.sleep(0.5)
