"""What is done to a task's update before it enters the weights."""

from __future__ import annotations

from collections.abc import Sequence

from ...config.adaptation import Interpolation, NormMatch
from ...delta import TaskDelta


class Interpolate:
    """Weight interpolation after every task (WiSE-FT, Wortsman et al., CVPR 2022, arXiv 2109.01903).

    W_t = w·W′ + (1 − w)·W* with W′ the trained weights and W* those of before the task (``previous``) or the
    pretrained ones. In updates: ΔW_t = w·ΔW′ for the former, and w·ΔW′ − (1 − w)·Σ_{i<t} ΔW_i for the latter.
    """

    def __init__(self, settings: Interpolation) -> None:
        self.settings = settings

    def __call__(self, delta: TaskDelta, earlier: Sequence[TaskDelta]) -> TaskDelta:
        """ΔW_t."""
        weight, kept = self.settings.weight, delta.scaled(self.settings.weight)
        if self.settings.towards == "pretrained":
            for before in earlier:
                kept = kept.plus(before.scaled(weight - 1.0))
            # What earlier tasks took back of still earlier ones would double the ranks with every task.
            kept = kept.shortened()
        return kept


class MatchNorm:
    """ΔW · norm / ‖ΔW‖_F: the direction is what was learned, the length is given."""

    def __init__(self, settings: NormMatch) -> None:
        self.settings = settings

    def __call__(self, delta: TaskDelta, earlier: Sequence[TaskDelta]) -> TaskDelta:
        """The rescaled update (zero stays zero)."""
        norm = delta.norm()
        return delta if norm == 0.0 else delta.scaled(self.settings.norm / norm)
