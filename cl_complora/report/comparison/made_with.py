"""What a comparison's runs were made with, when, and how long they took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import UserError
from ...store.folder import RunDir
from ..run.facts import finished, shots, time_spent
from .members import members
from .tables import Content


def runs_facts(found: Content, folder: Path) -> dict[str, str]:
    """For the head of the page: shots, when the last run finished, and the time of all of them.

    Args:
        found: content of comparison.json.
        folder: where it lies, with the runs below it.
    """
    runs = {where: results for where in members(found, folder) if (results := _results(where))}
    if not runs:
        return {}
    details = [d for results in runs.values() for d in results["tasks_detail"]]
    ends = [finished(RunDir(where), results["tasks"]) for where, results in runs.items()]
    told = {
        "Model": str(next(iter(runs.values()))["model"].get("name") or ""),
        "Shots per class": shots(details),
        "Last run finished": max((end for end in ends if end), default=None),
        f"Time of {len(runs)} runs": time_spent(details),
    }
    return {name: text for name, text in told.items() if text}


def software(where: Path) -> dict[str, str]:
    """Model, device and versions of a run; nothing where it does not tell them."""
    results = _results(where)
    if results is None:
        return {}
    model = results["model"]
    told = {"Model": str(model.get("name")), "SHA-256 of its weights": str(model.get("sha256"))}
    return told | {"Device": str(results["device"])} | {k: str(v) for k, v in results["software"].items()}


def has_plugin(where: Path) -> bool:
    """Whether a run's strategy names code of the user's own; False where it does not tell."""
    try:
        config = RunDir(where).read_config()
    except UserError:
        return False
    return config is not None and bool(config["strategy"].get("plugin"))


def _results(where: Path) -> dict[str, Any] | None:
    """results.json of a run; None where it is not there or not whole."""
    try:
        return RunDir(where).read_results()
    except UserError:
        return None
