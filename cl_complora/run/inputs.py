"""What a run is made from: one scenario × one strategy × one seed, with the model and the images that
they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..config import Scenario, Strategy
from ..data.planning import Plans

if TYPE_CHECKING:
    from ..clip.model import LoadedClip


@dataclass(frozen=True)
class RunInputs:
    """Everything that the results of a run follow from.

    Attributes:
        scenario, strategy: as configured.
        seed: of shots, order, initialisation and augmentation.
        loaded: the model with its tokenizer and preprocessing.
        plans: the images of every task and zero-shot set.
        device: as torch names it.
        elsewhere: from which tasks on it was computed elsewhere, and what differs there, the earliest first
            (:func:`~cl_complora.store.elsewhere.step_elsewhere`).
        made_where: ``software`` and ``device`` of a run that is done already
            (:func:`~cl_complora.run.results.made_where`); empty where it is computed here.
    """

    scenario: Scenario
    strategy: Strategy
    seed: int
    loaded: LoadedClip
    plans: Plans
    device: str
    elsewhere: tuple[dict[str, Any], ...] = ()
    made_where: Mapping[str, Any] = field(default_factory=dict)

    def state_name(self, tasks_learned: int) -> tuple[int, str]:
        """Index and name, as the run folder's files have them, of the state after so many tasks."""
        return tasks_learned - 1, self.plans.tasks[tasks_learned - 1].name if tasks_learned else "zero-shot"
