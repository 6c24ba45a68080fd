"""What plugins read of a training step."""

from __future__ import annotations

from types import SimpleNamespace

from torch.optim import Optimizer


class Batches:
    """Batches of an experience, of which so many are done."""

    def __init__(self, steps: int, done: int = 0) -> None:
        self.steps, self.done = steps, done

    def __len__(self) -> int:
        return self.steps


def step_of(
    steps: int, done: int, optimiser: Optimizer | None = None, counts: bool = True
) -> SimpleNamespace:
    """A training strategy after ``done`` of ``steps``, whose last one ``counts`` or was left out."""
    return SimpleNamespace(dataloader=Batches(steps, done), optimizer=optimiser, counts=counts)
