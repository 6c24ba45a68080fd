"""Plans of scenarios, each made once for a comparison: to make one lists every source and draws from it."""

from __future__ import annotations

from ..config import Scenario
from ..config.loading import Located
from ..data.items import Source
from ..data.planning import plan
from ..data.plans import Plans


class PlanStore:
    """Plans by scenario and seed; seeds share the sources, whose lists are the larger part of a plan."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, str, int], Plans] = {}
        self._opened: dict[tuple[str, str], dict[str, Source]] = {}

    def of(self, scenario: Located[Scenario], seed: int) -> Plans:
        """The plan of a scenario.

        Raises:
            UserError: as :func:`~cl_complora.data.planning.plan`.
        """
        key = scenario.value.model_dump_json(), str(scenario.folder), seed
        if key not in self._plans:
            self._plans[key] = plan(scenario, seed, self._opened.setdefault(key[:2], {}))
        return self._plans[key]
