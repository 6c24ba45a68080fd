"""Random numbers that a plugin draws apart from all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from .checkpoint import StepState
from .constraints import stable_seed


class OwnDraws(StepState):
    """A generator of the plugin's own, seeded anew for every experience and saved within it; to stand first
    among a plugin's bases.

    Args:
        seed: of the run.

    Attributes:
        purpose: what it draws, which tells its numbers from those of other plugins.
        generator: to draw from.
    """

    purpose: ClassVar[str]

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.generator = torch.Generator()

    def before_training_exp(self, strategy, **kwargs) -> None:
        """Nothing that happened before shifts what this experience draws."""
        position = strategy.experience.current_experience
        self.generator.manual_seed(stable_seed(self.seed, position, self.purpose))

    def step_state(self) -> dict[str, Tensor]:
        """Place in the stream of random numbers."""
        return {"generator": self.generator.get_state()}

    def load_step_state(self, tensors: Mapping[str, Tensor]) -> None:
        """As in the base class."""
        self.generator.set_state(tensors["generator"])
