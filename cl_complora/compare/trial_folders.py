"""Whether what lies in the folder of a trial was made with what the trial asks for; told without torch and
without the model.

A folder's name says the strategy, the seed and what was set of the strategy. What was set of the scenario,
and which pictures were drawn, only the run's ``config.yaml`` tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..config.plugin_file import made_with_plugin
from ..errors import UserError, raise_all
from ..store.folder import RunDir
from ..store.provenance import START_OVER, check_same, describe_with
from .outcomes import folder_of
from .plan_store import PlanStore
from .trials import Trial
from .weight_files import weight_file


class TrialFolders:
    """Holds what runs were made with against what trials ask for.

    The weights of a file are taken to be those that a run began with: they are for who loads the model.

    Args:
        out: folder of all runs.
        plans: of the trials, where some are made already.
    """

    def __init__(self, out: Path, plans: PlanStore | None = None) -> None:
        self.out = out
        self.plans = plans or PlanStore()

    def check(self, t: Trial) -> None:
        """Refuse a run that was made with something else; there need not be one.

        Raises:
            UserError: naming the folder and what differs, and for a damaged configuration.
        """
        folder = folder_of(t, self.out)
        config = folder.read_config()
        if config is None or folder.holds_nothing:
            return
        plans = self.plans.of(t.scenario, t.seed)
        now = describe_with(
            t.scenario.value, t.strategy.value, t.seed, config["model"], plans, "cpu", True, 1
        )
        now |= made_with_plugin(t.strategy)
        # Whether it may be gone on with on this machine, and with these versions, is told when it is.
        check_same(folder, now, t.strategy.value, complete=True)
        self._check_weights(t, folder, config)

    def _check_weights(self, t: Trial, folder: RunDir, config: dict[str, Any]) -> None:
        """Refuse other published weights, or none: no file tells them apart, and none is loaded here."""
        before = (config["scenario"].get("model") or {}).get("pretrained")
        now = t.scenario.value.model.pretrained
        if weight_file(t.scenario.value, t.scenario.folder) is None and before != now:
            raise UserError(
                f"{folder.root}: this run was made with scenario.model.pretrained = {before}, now it is"
                f" {now}; {START_OVER}"
            )

    def check_all(self, trials: Iterable[Trial]) -> None:
        """As :meth:`check`, of several: every one that was made with something else is named.

        Raises:
            UserError: a sentence for each of them.
        """
        faults: list[str] = []
        for t in trials:
            try:
                self.check(t)
            except UserError as error:
                faults += error.messages
        raise_all(faults)
