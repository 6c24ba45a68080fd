"""What is done to a task's update before it enters the weights."""

from __future__ import annotations

from collections.abc import Sequence

from ...config.adaptation import ImageTowerAlone, Interpolation, NormMatch
from ...delta import TaskDelta
from ..adapter import Merging
from ..full_parameters import tower_of


class Interpolate(Merging):
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


class MatchNorm(Merging):
    """ΔW · norm / ‖ΔW‖_F: the direction is what was learned, the length is given."""

    def __init__(self, settings: NormMatch) -> None:
        self.settings = settings

    def __call__(self, delta: TaskDelta, earlier: Sequence[TaskDelta]) -> TaskDelta:
        """The rescaled update (zero stays zero)."""
        norm = delta.norm()
        return delta if norm == 0.0 else delta.scaled(self.settings.norm / norm)


class MergeImageTower(Merging):
    """ΔW of the image tower alone; the text tower's weights are again what they were before the task.

    For strategies whose tasks are answered by heads on image features. What a text tower learns beside the
    image tower keeps that one from having to move towards texts that do not fit; kept in the weights it
    costs what texts answer elsewhere (docs/study-real.md).
    """

    def __init__(self, settings: ImageTowerAlone) -> None:
        self._captioned = False

    def look_ahead(self, experience) -> None:
        """As in the base class."""
        self._captioned = any(getattr(experience, "captioned", ()))

    def __call__(self, delta: TaskDelta, earlier: Sequence[TaskDelta]) -> TaskDelta:
        """ΔW_t; all of it for an experience with captions."""
        if self._captioned:
            return delta

        def images(changes: dict) -> dict:
            return {key: value for key, value in changes.items() if tower_of(key) == "vision"}

        return TaskDelta(images(delta.factors), images(delta.dense), images(delta.rows))
