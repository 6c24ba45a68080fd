"""A job for the workers of an evaluation in shards that is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from cl_complora.finished.eval_request import EvalRequest
from cl_complora.finished.eval_shards import compute_shard


def killed_once(request: EvalRequest, number: int, of: int, folder: Path, device: str) -> tuple[str, ...]:
    """As ``compute_shard``, but for the process that is the first to compute shard 2: it is killed."""
    tries = folder.parent / f"tries-{number}"
    with tries.open("a") as file:
        file.write(f"{device}\n")
    if number == 2 and len(tries.read_text().split()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return compute_shard(request, number, of, folder, device)
