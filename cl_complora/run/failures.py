"""What keeps a task from being trained, or ends it, told in a sentence that says what to change."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import UserError

# How torch, the allocators below it and CUDA's libraries tell that there is no memory left.
_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
)


# What a run does with other settings than it was begun with; other commands do otherwise.
WITH_FRESH = " (with --fresh, since a run keeps its settings)"


class DoesNotFit(UserError):
    """A strategy cannot work with the scenario or the model, or needs a package that is not here."""


class TooLittleMemory(UserError):
    """What was asked for can be trained, and not by this machine as it is now.

    Nothing is said against the settings by it: where several values are tried, it is no result of one.
    """


@contextmanager
def told_of_failure(
    task: str, good: str, device: str, batch: int, plugin: str | None = None
) -> Iterator[None]:
    """Around the training of a task; whatever was saved before stays as it was.

    Args:
        task: its name.
        good: what the last good state is that of.
        device: where it trains.
        batch: images a step.
        plugin: module of a plugin of the user's own, whose decompositions are a matter of its author.

    Raises:
        UserError: for a loss that is no number, and for what cannot be compiled.
        TooLittleMemory: for memory that does not suffice.
    """
    from torch.linalg import LinAlgError

    from ..engine.checkpoint import Diverged
    from ..engine.external_plugin import lines_of

    try:
        yield
    except Diverged as error:
        raise _diverged(task, good, f"the loss is not a number {error}") from None
    except LinAlgError as error:
        if plugin is not None and lines_of(error, plugin):
            raise
        told = " ".join(str(error).split())
        raise _diverged(task, good, f"a decomposition of what it led to failed ({told[:200]})") from None
    except (MemoryError, RuntimeError) as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            told = " ".join(str(error).split())
            raise UserError(
                f"task '{task}': torch.compile does not work here ({told[:200]}); leave training.compile out,"
                f" or install what it needs. The last good state is that of {good}"
            ) from None
        raise_if_memory(
            error,
            f"task '{task}': the memory of {device} does not suffice for a batch of {batch}; training.chunk: "
            f"{max(1, batch // 4)} gives the same result in less, as does training.checkpointing: true (and "
            "training.remember: false); training.precision: bf16 halves the activations, "
            f"training.batch_size is the last resort. The last good state is that of {good}",
        )
        raise


@contextmanager
def told_of_memory(doing: str, device: str) -> Iterator[None]:
    """Around what computes without training: memory that does not suffice is told.

    Args:
        doing: what, as the beginning of a sentence.
        device: where.

    Raises:
        TooLittleMemory: for memory that does not suffice.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        raise_if_memory(
            error,
            f"{doing}: the memory of {device} does not suffice; free what other programs hold of it, measure "
            "fewer images at a time (evaluation.batch_size in the scenario, 256 by default) or in 16 bits "
            "(evaluation.precision: bf16), or take another device (--device). The run goes on from its last "
            "state",
        )
        raise


def says_too_little(error: Exception) -> bool:
    """Whether an error tells of too little memory."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY)


def raise_if_memory(error: Exception, told: str) -> None:
    """Tell too little memory in these words; what failed lets go of its tensors, so that a notebook can try
    again.

    Raises:
        TooLittleMemory: where that is what the error says.
    """
    if says_too_little(error):
        traceback.clear_frames(error.__traceback__)
        raise TooLittleMemory(told) from None


def _diverged(task: str, good: str, how: str) -> UserError:
    return UserError(
        f"task '{task}': training diverged: {how}; the last good state is that of {good}; lower "
        "optimiser.lr, set optimiser.clip_norm, or leave such steps out with training.on_nan: skip"
        f"{WITH_FRESH}"
    )
