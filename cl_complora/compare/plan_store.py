"""Plans of scenarios, each made once for a comparison: to make one lists every source and draws from it."""

from __future__ import annotations

from ..config import Scenario
from ..config.loading import Located
from ..data.planning import plan
from ..data.plans import Plans


class PlanStore:
    """Plans by scenario and seed."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, str, int], Plans] = {}

    def of(self, scenario: Located[Scenario], seed: int) -> Plans:
        """The plan of a scenario.

        Raises:
            UserError: as :func:`~cl_complora.data.planning.plan`.
        """
        key = scenario.value.model_dump_json(), str(scenario.folder), seed
        if key not in self._plans:
            self._plans[key] = plan(scenario, seed)
        return self._plans[key]
