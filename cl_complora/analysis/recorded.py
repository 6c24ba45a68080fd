"""The scenario that a run was made with, read back from its config.yaml."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ..config import Scenario
from ..config.loading import Located
from ..errors import UserError
from ..store.folder import RunDir


def recorded_scenario(folder: RunDir, config: dict[str, Any]) -> Located[Scenario]:
    """The scenario of a run, with the file that its relative paths start from.

    Raises:
        UserError: if the configuration is damaged or of another version.
    """
    try:
        return Located(Scenario.model_validate(config["scenario"]), config["files"]["scenario"], {})
    except (ValidationError, KeyError, TypeError) as error:
        told = " ".join(str(error).split())[:200]
        raise UserError(f"{folder.config}: damaged, or of another version ({told})") from None


def only_task(scenario: Located[Scenario], name: str) -> Located[Scenario]:
    """The scenario with one of its tasks alone: its draw is the same, and the other sources need not be
    there."""
    tasks = [task for task in scenario.value.tasks if task.name == name]
    if not tasks:
        raise UserError(f"{scenario.file}: has no task '{name}'")
    alone = scenario.value.model_copy(update={"tasks": tasks, "zero_shot": [], "reference": None})
    return Located(alone, scenario.file, {})
