"""What keeps a task from being trained, or ends it, told in a sentence that says what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import UserError


class DoesNotFit(UserError):
    """A strategy cannot work with the scenario or the model, or needs a package that is not here."""


class TooLittleMemory(UserError):
    """What was asked for can be trained, and not by this machine as it is now.

    Nothing is said against the settings by it: where several values are tried, it is no result of one.
    """


@contextmanager
def told_of_failure(task: str, good: str, device: str, batch: int) -> Iterator[None]:
    """Around the training of a task; whatever was saved before stays as it was.

    Args:
        task: its name.
        good: what the last good state is that of.
        device: where it trains.
        batch: images a step.

    Raises:
        UserError: for a loss that is no number, and for what cannot be compiled.
        TooLittleMemory: for memory that does not suffice.
    """
    from ..engine.checkpoint import Diverged

    try:
        yield
    except Diverged as error:
        raise UserError(
            f"task '{task}': training diverged: the loss is not a number {error}; the last good state is that"
            f" of {good}; lower optimiser.lr, set optimiser.clip_norm, or leave such steps out with"
            " training.on_nan: skip"
        ) from None
    except (MemoryError, RuntimeError) as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            told = " ".join(str(error).split())
            raise UserError(
                f"task '{task}': torch.compile does not work here ({told[:200]}); leave training.compile out,"
                f" or install what it needs. The last good state is that of {good}"
            ) from None
        if not _is_out_of_memory(error):
            raise
        raise TooLittleMemory(
            f"task '{task}': the memory of {device} does not suffice for a batch of {batch}; training.chunk: "
            f"{max(1, batch // 4)} gives the same result in less, as does training.checkpointing: true (and "
            "training.remember: false); training.precision: bf16 halves the activations, "
            f"training.batch_size is the last resort. The last good state is that of {good}"
        ) from None


def _is_out_of_memory(error: Exception) -> bool:
    told = str(error)
    return isinstance(error, MemoryError) or "out of memory" in told or "can't allocate memory" in told
