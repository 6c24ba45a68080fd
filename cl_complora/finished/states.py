"""Any state of a run rebuilt from the pretrained weights and the deltas of its tasks: W_t = W_0 + Σ ΔW_i."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ..clip.classifier import ClipClassifier
from ..clip.model import LoadedClip, load_clip
from ..config import Scenario
from ..config.loading import Located
from ..data.labels import LabelSpace
from ..errors import UserError
from ..rundir import RunDir


@dataclass
class State:
    """A run's model after some of its tasks.

    Attributes:
        folder: the run.
        config: what it was made with.
        results: its results.json.
        scenario: its scenario, with the folder that relative paths start from.
        loaded: the model, with merged weights.
        after: tasks that the weights hold, in order.
    """

    folder: RunDir
    config: dict[str, Any]
    results: dict[str, Any]
    scenario: Located[Scenario]
    loaded: LoadedClip
    after: list[str]

    def classifier(self) -> ClipClassifier:
        """The model with its text head, for evaluation."""
        found = self.loaded
        return ClipClassifier(found.model, found.tokenizer, mean=found.mean, std=found.std).eval()

    def spaces(self) -> dict[str, LabelSpace]:
        """Name of every task and zero-shot set → its own classes and prompts."""
        stored = self.folder.read_json(self.folder.classes)
        if stored is None:
            raise UserError(f"{self.folder.classes}: missing; the same run command writes it again")
        return {name: LabelSpace.from_templates(part["classes"], part["prompts"]) for name, part in stored.items()}


def open_run(path: Path, after: str | None = None, scale: Mapping[str, float] | None = None) -> State:
    """Rebuild a state of a run.

    Args:
        path: the run's folder (``runs/embedded/complora/seed0``).
        after: name or number (from 1) of the last task to include, 0 for the untouched model; by default all finished.
        scale: task → factor on its update (0 leaves it out).

    Raises:
        UserError: if this is no run, a task is not in it, or the pretrained weights are not those it began with.
    """
    folder = RunDir(path)
    config, results = _read(folder)
    tasks = _finished_tasks(folder, results)
    count = len(tasks) if after is None else _position(after, tasks, path)
    factors = dict(scale or {})
    for name in factors:
        if name not in tasks[:count]:
            raise UserError(f"{path}: no task {name!r} among those merged: {', '.join(tasks[:count]) or 'none'}")
    scenario = _scenario(folder, config)
    loaded = load_clip(scenario.value.model, scenario.folder)
    if loaded.sha256 != config["model"]["sha256"]:
        raise UserError(f"{path}: began with other weights of {loaded.name} than are there now")
    parameters = dict(loaded.model.named_parameters())
    from ..engine.state import load_delta

    for index, name in enumerate(tasks[:count]):
        if factors.get(name, 1.0) != 0.0:
            load_delta(folder.delta(index, name)).add_to(parameters, factors.get(name, 1.0))
    return State(folder, config, results, scenario, loaded, tasks[:count])


def _read(folder: RunDir) -> tuple[dict, dict]:
    if not folder.root.is_dir():
        raise UserError(f"{folder.root}: there is no such folder; give a run's, such as runs/embedded/complora/seed0")
    try:
        config = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        inside = sorted(p.parent for p in folder.root.glob("**/results.json"))[:3]
        hint = f"; runs in it: {', '.join(map(str, inside))}" if inside else ""
        raise UserError(f"{folder.root}: is no run (it has no config.yaml){hint}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{folder.config}: damaged ({error})") from None
    results = folder.read_json(folder.results)
    if results is None:
        raise UserError(f"{folder.root}: nothing is finished in this run yet")
    return config, results


def _finished_tasks(folder: RunDir, results: dict) -> list[str]:
    tasks = []
    for index, name in enumerate(results["tasks"]):
        if not (folder.record(index, name).exists() and folder.delta(index, name).exists()):
            break
        tasks.append(name)
    return tasks


def _position(after: str, tasks: list[str], path: Path) -> int:
    if after in tasks:
        return tasks.index(after) + 1
    if after.isdigit() and int(after) <= len(tasks):
        return int(after)
    raise UserError(f"--after {after}: {path} has finished {', '.join(tasks) or 'no task'} (or 0 to {len(tasks)})")


def _scenario(folder: RunDir, config: dict) -> Located[Scenario]:
    try:
        value = Scenario.model_validate(config["scenario"])
        file = config["files"]["scenario"]
    except (ValidationError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder.config}: damaged, or of another version ({' '.join(str(error).split())[:200]})"
        ) from None
    return Located(value, file, {})
