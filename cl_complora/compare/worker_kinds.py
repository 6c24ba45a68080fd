"""Which kind of workers computes the runs of a comparison."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import UserError
from .processes import Processes
from .ray_tasks import RayTasks
from .workers import Placing, Workers


def open_workers(placing: Placing, tell: Callable[[str], None] | None = None) -> Workers:
    """Processes of this machine, or a cluster.

    Args:
        placing: which, and how.
        tell: given sentences about what is used.

    Raises:
        UserError: for what is not there.
    """
    tell = tell or (lambda sentence: None)
    share = placing.gpus_per_run
    if share is not None and not 0 < share <= 1:
        raise UserError(f"--gpus-per-run {share:g}: must be greater than 0 and at most 1: a run uses one GPU")
    if placing.cluster is not None:
        return RayTasks(placing, tell)
    return Processes(placing, tell=tell)
