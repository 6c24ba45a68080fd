"""Any state of a run rebuilt from the pretrained weights and the deltas of its tasks: W_t = W_0 + Σ ΔW_i.

Of independent tasks each has a model of its own, W_0 + ΔW_t.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..clip.classifier import ClipClassifier
from ..clip.heads.head import Head
from ..clip.model import LoadedClip
from ..clip.untouched_tower import UntouchedTower
from ..config import Scenario
from ..config.heads import IN_WEIGHTS
from ..config.loading import Located
from ..config.recorded import learned_at_once
from ..data.labels import LabelSpace
from ..delta import TaskDelta
from ..errors import UserError
from ..store.deltas import load_delta, merge_delta
from ..store.folder import RunDir
from ..store.forms import damaged
from ..store.head_files import load_head
from .model_files import classifier_of
from .pretrained import load_pretrained


@dataclass
class State:
    """A run's model after some of its tasks.

    Attributes:
        folder: the run.
        config: what it was made with.
        results: its results.json.
        scenario: its scenario, with the folder that relative paths start from.
        loaded: the model, with merged weights, and beside it the untouched image tower where heads read that.
        after: tasks that the weights hold, in order.
        scale: task → factor on its update; 1 where it is not named. With 0 its head is left out as well.
    """

    folder: RunDir
    config: dict[str, Any]
    results: dict[str, Any]
    scenario: Located[Scenario]
    loaded: LoadedClip
    after: list[str]
    scale: Mapping[str, float] = field(default_factory=dict)

    def classifier(self) -> ClipClassifier:
        """The model with its text head, for evaluation."""
        return classifier_of(self.loaded, self.batch_size)

    @property
    def precision(self) -> str:
        """What the towers compute in where the run measures."""
        return self.scenario.value.evaluation.precision

    @property
    def batch_size(self) -> int:
        """Images at a time where the run measures."""
        return self.scenario.value.evaluation.batch_size

    @property
    def row(self) -> int:
        """Row of the run's matrix that this state was measured in; 0 is the untouched model."""
        return self.results["tasks"].index(self.after[-1]) + 1 if self.after else 0

    @property
    def trained_on(self) -> list[str]:
        """Tasks that the weights were trained on: those with a factor other than zero, or all of a run that
        learns them together."""
        held = [task for task in self.after if self.scale.get(task, 1.0) != 0.0]
        return list(self.results["tasks"]) if held and learned_at_once(self.config) else held

    @property
    def shares_head(self) -> bool:
        """Whether one head, the latest, answers for all tasks, which share a label space."""
        return self.scenario.value.shares_labels

    @property
    def has_head(self) -> bool:
        """Whether the run answers its own tasks by something else than texts."""
        head = (self.config["strategy"].get("head") or {}).get("kind")
        return bool(self.after) and head not in (None, *IN_WEIGHTS)

    def heads(self) -> dict[str, Head]:
        """Task → what answers for it in place of its texts; empty where texts answer.

        Raises:
            UserError: for a head that is missing or damaged.
        """
        if not self.has_head:
            return {}
        tasks = self.results["tasks"]
        device = next(self.loaded.model.parameters()).device

        def of(name: str) -> Head:
            return load_head(self.folder.head(tasks.index(name), name)).to(device)

        if self.shares_head:
            return dict.fromkeys(tasks, of(self.after[-1]))
        headed = [name for name in self.after if name not in self.captioned]
        return {name: of(name) for name in headed if self.scale.get(name, 1.0) != 0.0}

    def updates(self) -> Iterator[tuple[TaskDelta, float]]:
        """What every task in the weights added to them, in order, and the factor on it."""
        for path, factor in self.deltas():
            yield load_delta(path), factor

    def deltas(self) -> Iterator[tuple[Path, float]]:
        """File of every update in the weights, in order, and the factor on it."""
        for name in self.after:
            factor = self.scale.get(name, 1.0)
            if factor != 0.0:
                yield self.folder.delta(self.results["tasks"].index(name), name), factor

    def merged(self) -> list[str]:
        """Every task whose update is in the weights, with the factor on it where that is not 1."""
        factors = ((name, self.scale.get(name, 1.0)) for name in self.after)
        return [
            name if factor == 1.0 else f"{factor:g} × {name}" for name, factor in factors if factor != 0.0
        ]

    def merge(self) -> None:
        """Add every update to the weights, which must be the untouched ones.

        Raises:
            UserError: for a delta that is missing or damaged, or does not fit the model.
        """
        parameters = dict(self.loaded.model.named_parameters())
        for delta, factor in self.deltas():
            merge_delta(delta, parameters, factor)

    @property
    def captioned(self) -> list[str]:
        """Names of the tasks that have pictures with captions and no classes."""
        return [task.name for task in self.scenario.value.tasks if task.captioned]

    def refuse_captions(self, what: str) -> None:
        """Where a part of this package looks at classes only.

        Args:
            what: it does, as the rest of a sentence.

        Raises:
            UserError: for a run that has a task of captions.
        """
        if self.captioned:
            raise UserError(
                f"{self.folder.root}: task '{self.captioned[0]}' has pictures with captions and no classes;"
                f" {what}"
            )

    def spaces(self) -> dict[str, LabelSpace]:
        """Name of every task that has classes, and of every zero-shot set → its classes and their prompts.

        They are those that the run measures with: a set's own, but in a class-incremental stream, where all
        tasks have one label space, a class that recurs has those of the first task that has it.
        """
        stored = self.folder.read_labels()
        absent = [name for name in self.results["tasks"] if name not in [*stored, *self.captioned]]
        empty = [name for name, part in stored.items() if not part["classes"] or not part["prompts"]]
        if absent or empty:
            raise damaged(self.folder.classes, f"without classes or prompts of '{(absent + empty)[0]}'")
        found = {
            name: LabelSpace.from_templates(part["classes"], part["prompts"]) for name, part in stored.items()
        }
        if self.scenario.value.protocol == "class-incremental":
            tasks = [name for name in self.results["tasks"] if name in found]
            joint = joined(found, tasks)
            found |= {name: joint.of(found[name].class_names) for name in tasks}
        return found


def joined(spaces: Mapping[str, LabelSpace], tasks: Sequence[str]) -> LabelSpace:
    """The label space of some tasks together: a class that several have keeps the prompts of the first."""
    space = spaces[tasks[0]]
    for name in tasks[1:]:
        space = space.joined(spaces[name])
    return space


def open_run(
    path: Path,
    after: str | None = None,
    scale: Mapping[str, float] | None = None,
    pretrained: str | None = None,
    model_config: str | None = None,
    task: str | None = None,
) -> State:
    """Rebuild a state of a run.

    Args:
        path, after, scale, pretrained, model_config, task: as in :func:`find_state`.

    Raises:
        UserError: as there, and for deltas that cannot be merged.
    """
    state = find_state(path, after, scale, pretrained, model_config, task)
    state.merge()
    return state


def find_state(
    path: Path,
    after: str | None = None,
    scale: Mapping[str, float] | None = None,
    pretrained: str | None = None,
    model_config: str | None = None,
    task: str | None = None,
) -> State:
    """A state of a run before any update is merged: its model has the pretrained weights.

    Args:
        path: the run's folder (``runs/embedded/complora/seed0``).
        after: name or number (from 1) of the last task to include (of independent tasks: of the one to
            include), 0 for the untouched model; by default the last finished.
        scale: task → factor on its update (0 leaves it out).
        pretrained, model_config: the weights and the model config that it began with, where they cannot be
            found beside the run or its scenario.
        task: that is asked about; of independent tasks, each of which has a model of its own, the one whose
            model it is to be.

    Raises:
        UserError: if this is no run, a task is not in it or cannot be scaled (:func:`refuse_inexact`), the
            pretrained weights are not those it began with, or another model than that of an independent task
            is asked about it.
    """
    folder = RunDir(path)
    config, results = _read(folder)
    tasks = finished_tasks(folder, results)
    scenario = folder.recorded_scenario(config)
    if scenario.value.independent and task in results["tasks"]:
        count = _model_of(task, after, tasks, path)
    else:
        count = len(tasks) if after is None else _position(after, tasks, path)
    held = tasks[:count][-1:] if scenario.value.independent else tasks[:count]
    factors = dict(scale or {})
    for name in factors:
        if name not in held:
            raise UserError(f"{path}: no task {name!r} among those merged: {', '.join(held) or 'none'}")
    refuse_inexact(path, config, scenario.value, factors, held)
    loaded = load_pretrained(folder, config, scenario, pretrained, model_config)
    if (config["strategy"].get("head") or {}).get("with_untouched"):
        loaded.untouched = UntouchedTower(loaded.model)
    return State(folder, config, results, scenario, loaded, held, factors)


def every_state(untouched: State) -> Iterator[State]:
    """The untouched state of a run and the one after every finished task, in the weights of one model.

    Each is what the model holds until the next is asked for. Afterwards it holds every update; of independent
    tasks, which have a model each, none.

    Args:
        untouched: the run's state before its first task (``open_run(path, after="0")``).
    """
    model, folder = untouched.loaded.model, untouched.folder
    independent = untouched.scenario.value.independent
    pretrained = {k: v.clone() for k, v in model.state_dict().items()} if independent else {}
    parameters = dict(model.named_parameters())
    done = finished_tasks(folder, untouched.results)
    yield untouched
    for index, name in enumerate(done):
        merge_delta(folder.delta(index, name), parameters)
        yield replace(untouched, after=[name] if independent else done[: index + 1])
        if independent:
            model.load_state_dict(pretrained)


def refuse_inexact(
    path: Path,
    config: Mapping[str, Any],
    scenario: Scenario,
    factors: Mapping[str, float],
    held: Sequence[str],
) -> None:
    """Refuse factors with which a state would not be what is asked for.

    Args:
        path: the run's folder.
        config: what it was made with.
        scenario: its scenario.
        factors: task → factor on its update.
        held: tasks whose updates the state has, in order.

    Raises:
        UserError: for tasks that were learned all at once, a task whose update others hold a part of, a part
            of a head, and a task in a head of all.
    """
    strategy = config["strategy"]
    head = (strategy.get("head") or {}).get("kind")
    trained = strategy["adapter"]["kind"] != "none" or head in IN_WEIGHTS
    if factors and len(scenario.tasks) > 1 and learned_at_once(config):
        raise UserError(
            f"{path}: its tasks were learned all at once (training.stream: joint), so none has an update of"
            " its own that could be left out or scaled; --after 0 is the model without all of them"
        )
    why = why_in_later_updates(strategy)
    for name, factor in factors.items():
        later = [other for other in held[held.index(name) + 1 :] if factors.get(other, 1.0) != 0.0]
        if why is not None and factor != 1.0 and later:
            raise UserError(
                f"{path}: task {name!r} cannot be left out or scaled: the updates of later tasks"
                f" ({', '.join(later)}) hold a part of it, since {why}; the last task of a state can be, as"
                f" with --after {name}"
            )
        if not trained and head is not None and factor not in (0.0, 1.0):
            raise UserError(
                f"{path}: task {name!r} has no update to scale: only heads were trained"
                f"{'' if scenario.shares_labels else ', which --without leaves out'}"
            )
        if factor == 0.0 and head is not None and head not in IN_WEIGHTS and scenario.shares_labels:
            curve = f"; --curve {name} measures along the update of the weights alone" if trained else ""
            raise UserError(
                f"{path}: task {name!r} cannot be left out: one head answers for all tasks (protocol:"
                f" {scenario.protocol}), and what it learned of one cannot be taken out of it{curve}"
            )


def why_in_later_updates(strategy: Mapping[str, Any]) -> str | None:
    """Why what a task added is in the updates of later tasks as well, so that taking its own update out would
    leave a part of it in the weights; None where every update is that of its task alone.

    Args:
        strategy: as config.yaml records it.
    """
    adapter = strategy["adapter"]
    merge = adapter.get("merge") or {}
    if (adapter.get("between") or {}).get("kind") == "directions":
        return "each scales earlier updates anew (adapter.between.kind: directions)"
    if merge.get("towards") == "pretrained" and merge.get("weight") != 1.0:
        return "each takes a share of earlier updates back (adapter.merge.towards: pretrained)"
    head = (strategy.get("head") or {}).get("kind")
    if head in IN_WEIGHTS:
        return f"each is a map of what those before it made (head.kind: {head})"
    return None


def _read(folder: RunDir) -> tuple[dict, dict]:
    if not folder.root.is_dir():
        raise UserError(
            f"{folder.root}: there is no such folder; give a run's, such as runs/embedded/complora/seed0"
        )
    config = folder.read_config()
    if config is None:
        inside = sorted(p.parent for p in folder.root.glob("**/results.json"))[:3]
        hint = f"; runs in it: {', '.join(map(str, inside))}" if inside else ""
        raise UserError(f"{folder.root}: is no run (it has no config.yaml){hint}")
    results = folder.read_results()
    if results is None:
        raise UserError(f"{folder.root}: nothing is finished in this run yet")
    tasks = [task.get("name") for task in config["scenario"].get("tasks", ()) if isinstance(task, dict)]
    if results["tasks"] != tasks or results["seed"] != config["seed"]:
        raise damaged(folder.results, f"its tasks or seed are not those of {folder.config.name}")
    return config, results


def finished_tasks(folder: RunDir, results: Mapping[str, Any]) -> list[str]:
    """Tasks whose record and update a run has, up to the first that is not whole."""
    tasks = []
    for index, name in enumerate(results["tasks"]):
        if not (folder.record(index, name).exists() and folder.delta(index, name).exists()):
            break
        tasks.append(name)
    return tasks


def _position(after: str, tasks: list[str], path: Path) -> int:
    if after == "0":  # the untouched model, whatever tasks are called
        return 0
    if after in tasks:
        return tasks.index(after) + 1
    if after.isascii() and after.isdigit() and int(after) <= len(tasks):
        return int(after)
    raise UserError(
        f"--after {after}: {path} has finished {', '.join(tasks) or 'no task'} (or 0 to {len(tasks)})"
    )


def _model_of(task: str, after: str | None, tasks: list[str], path: Path) -> int:
    """The place of the state that has the model of an independent task; the untouched one has none of another
    task."""
    position = None if after is None else _position(after, tasks, path)
    if position is None and task not in tasks:
        raise UserError(f"--task {task}: {path} has finished {', '.join(tasks) or 'no task'}")
    if position and tasks[position - 1] != task:
        raise UserError(
            f"--task {task} and --after {after}: the tasks of this run are independent, and the model after"
            f" '{tasks[position - 1]}' has learned nothing of '{task}'; leave --after out"
        )
    return tasks.index(task) + 1 if position is None else position
