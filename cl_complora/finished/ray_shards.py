"""The shards of an evaluation as tasks of a Ray cluster: each reads the model and its slice of the images
from the folder that all nodes share, and leaves its file there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..errors import UserError
from ..run.ray_cluster import Lost, Needs, RayCluster
from .eval_request import EvalRequest
from .eval_shards import Shards, compute_shard, counted


def compute_on_cluster(
    missing: Sequence[int], request: EvalRequest, shards: Shards, address: str, tell: Callable[[str], None]
) -> None:
    """Compute shards on a cluster, each with the threads of an evaluation without shards.

    Args:
        missing: numbers of the shards.
        request: what was asked for.
        shards: all of it.
        address: of the cluster's head node, or ``auto``.
        tell: given a sentence about the cluster.

    Raises:
        UserError: where Ray or the cluster is not there or too small, for a node that does not share the
            folder, and for shards that were lost with their nodes again and again.
    """
    needs = Needs(
        what="a shard",
        device=request.device,
        threads=torch.get_num_threads(),
        gpus=None,
        folder=shards.folder,
        option="--shard-folder",
        cure="set OMP_NUM_THREADS to fewer threads (last bits depend on them), or say --device cpu",
        instead="--shard",
    )
    lost: dict[int, str] = {}
    with RayCluster(address, needs, tell) as cluster:
        tell(f"computing {counted(len(missing))}")
        arguments = [(request, number, shards.of, shards.folder) for number in missing]
        for index, found in cluster.each(compute_shard, arguments):
            if isinstance(found, UserError):
                raise found
            if isinstance(found, Lost):
                lost[missing[index]] = found.why
            elif found:
                raise UserError(found[0], tuple(found[1:]))
    if lost:
        first = min(lost)
        raise UserError(
            f"shard {first}/{shards.of} was lost with its node or process ({lost[first]}); the others are"
            " kept, and the same command goes on"
        )
