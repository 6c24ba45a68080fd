"""Everything about a scenario's data that a reader of its results would want to know, one line each."""

from __future__ import annotations

from ...config.loading import Located
from ...config.scenario import Scenario
from ..planning import Plans
from .duplicates import copies
from .picture_notes import picture_notes
from .plausibility import doubts

# Copies of a kind that are named; the others are counted.
NAMED = 20


def notes(located: Located[Scenario], plans: Plans, every: bool = False) -> list[str]:
    """What sources passed over or took for something, what looks like a mistake, and what is tested on
    though it was trained on.

    Args:
        located: the scenario.
        plans: of it, for one seed.
        every: look into every picture, and not into a sample, where that takes decoding, and name more than
            one of the copies.
    """
    return [
        *plans.notes,
        *doubts(located, plans),
        *picture_notes(plans, every),
        *copies(plans, NAMED if every else 1),
    ]
