"""Curvature of a task's loss at the start of its training: λ_max of the Hessian in the trained coordinates.

    H = ∂²L/∂θ²,    L = mean cross-entropy of the task's images,    θ = what the strategy trains

θ are the factors A, B of every adapted matrix (in their reduced coordinates where the strategy trains those),
as freshly attached to W_{t−1}; of full fine-tuning the parameters themselves. λ_max is found per module (the
rows and columns of H that belong to it) and for all of them jointly, which is at least as large. A parameter
that modules share belongs to each of them, and jointly is one coordinate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..analysis.representation import spread
from ..clip.classifier import ClipClassifier
from ..config.recorded import recorded
from ..config.strategy import Strategy
from ..data.labels import LabelSpace
from ..data.planning import Plans
from ..data.tasks import Images, TaskData, load
from ..engine.checkpoint import Checkpoints
from ..engine.constraints import stable_seed
from ..engine.experience import ClipExperience, experience_at
from ..engine.task_state import CarryingPlugin, meet_plugins, plugins_intact, restore_plugins
from ..engine.updates.complora import CompLoRAPlugin
from ..errors import UserError
from ..files import write_json
from ..lowrank import LowRankBlock
from ..progress import Quiet
from ..run.inputs import RunInputs
from ..run.learner import Learner
from ..run.signals import Stopping
from ..store.deltas import load_delta
from ..store.forms import damaged, read_json
from ..store.records import finished_records
from .evaluation import plans_of
from .lanczos import Extremes, extremes
from .states import State

FILE = "curvature.json"


class _Beginning:
    """What an adapter asks of the loop that it begins an experience in."""

    def __init__(self, model: ClipClassifier, experience: ClipExperience) -> None:
        self.model, self.experience = model, experience


def curvature(
    untouched: State,
    tasks: Sequence[str] = (),
    most_images: int = 64,
    tolerance: float = 1e-3,
    most_steps: int = 100,
    jointly_only: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """λ_max of the loss of some tasks of a run; also kept as ``curvature.json`` in the run, beside what was
    found in the same way of its other tasks, and of the modules where they are left out now.

    Args:
        untouched: the run's state before its first task, with nothing merged (:func:`find_state`).
        tasks: names; the first of the run by default.
        most_images: of a task's training images, evenly spread, without augmentation.
        tolerance, most_steps: of Lanczos.
        jointly_only: leave the modules out.
        tell: told what is being done.

    Raises:
        UserError: for a strategy that trains no weights, a task that is not in the run or not before its
            end, and a task whose start depends on what is not on the disk any more.
    """
    folder, results = untouched.folder, untouched.results
    strategy = _strategy(untouched)
    names = list(dict.fromkeys(tasks)) or results["tasks"][:1]
    for name in names:
        if name not in results["tasks"]:
            raise UserError(f"--task {name}: {folder.root} has the tasks {', '.join(results['tasks'])}")
    plans = plans_of(untouched)
    protocol, choice = untouched.scenario.value.protocol, strategy.loss_classes
    data = load(Plans(plans.tasks, (), plans.reference), protocol, untouched.loaded.pixels, choice, False)
    pretrained = {key: value.clone() for key, value in untouched.loaded.model.state_dict().items()}
    found = []
    for name in names:
        position = results["tasks"].index(name)
        experience = experience_at(strategy.training.stream, data.tasks, position)
        if experience is None:
            raise UserError(
                f"--task {name}: training.stream: {strategy.training.stream} trains everything at the first"
                f" task, '{results['tasks'][0]}'"
            )
        if any(experience.captioned):
            raise UserError(
                f"--task {name}: has pictures with captions, whose loss depends on how they are drawn into"
                " batches; curvature is that of a loss over classes"
            )
        learner = _learner(untouched, strategy, plans, pretrained)
        _restore(learner, untouched, data, position)
        learner.adapter.before_train_dataset_adaptation(_Beginning(learner.model, experience))
        loss = TaskLoss(learner.model, experience, most_images)
        modules = _modules(learner)
        every = _each_once(modules.values())
        tell(f"'{name}': {len(every)} tensors in {len(modules)} modules")
        seed = stable_seed(results["seed"], position, "curvature")
        joint = largest_of(loss, every, seed, tolerance, most_steps)
        each = [] if jointly_only else modules.items()
        found.append(
            {
                "name": name,
                "images": loss.images,
                "parameters": sum(p.numel() for p in every),
                "loss": float(loss().detach()),
                "joint": vars(joint),
                "modules": {
                    key: vars(largest_of(loss, parameters, seed, tolerance, most_steps))
                    for key, parameters in each
                },
            }
        )
        learner.adapter.merge(learner.model)
    content = {
        "coordinates": _coordinates(strategy),
        "learning_rate": strategy.optimiser.lr if strategy.optimiser else None,
        "swept": swept_rate(folder.root, results["strategy"]),
        "tasks": found,
        "created_with": {
            "images": most_images,
            "tolerance": tolerance,
            "steps": most_steps,
            "software": results["software"],
        },
    }
    every = {one["name"]: one for one in _kept(folder.root / FILE, content, tell)}
    for one in found:
        # Asked for jointly alone, a task keeps what was found of its modules.
        before = every.get(one["name"], {}).get("modules")
        kept = before if jointly_only and isinstance(before, dict) else one["modules"]
        every[one["name"]] = one | {"modules": kept}
    in_order = [every[name] for name in results["tasks"] if name in every]
    write_json(folder.root / FILE, content | {"tasks": in_order})
    return content


def _kept(path: Path, new: dict[str, Any], tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """What an earlier call found of the tasks; nothing where its figures cannot stand beside the new ones."""
    try:
        earlier = read_json(path) or {}
        if all(earlier[key] == new[key] for key in ("coordinates", "created_with")):
            return [one for one in earlier["tasks"] if isinstance(one["name"], str)]
        asked = [one["name"] for one in new["tasks"]]
        others = [str(one["name"]) for one in earlier["tasks"] if one["name"] not in asked]
    except (UserError, KeyError, TypeError):
        return []
    if others:
        tell(f"{path.name}: what it said of {', '.join(others)} was found with other settings and goes")
    return []


class TaskLoss:
    """Mean cross-entropy of an experience's training images, without augmentation, dropout or penalties.

    Args:
        model: the classifier.
        experience: what is trained.
        most: images of each of its tasks at most.
    """

    def __init__(self, model: ClipClassifier, experience: ClipExperience, most: int) -> None:
        self.model = model.eval()
        device = next(model.parameters()).device
        self.parts: list[tuple[Images, LabelSpace]] = []
        for part, space in zip(experience.parts, experience.of_parts, strict=True):
            chosen = spread(len(part.train), most)
            pixels, labels = part.train.pixels[chosen], part.train.labels[chosen]
            self.parts.append((Images(pixels.to(device), labels.to(device)), space))
        self.images = sum(len(images) for images, _ in self.parts)

    def __call__(self) -> Tensor:
        """L, with gradients."""
        terms = [
            F.cross_entropy(self.model(images.pixels, space), images.labels, reduction="sum")
            for images, space in self.parts
        ]
        return torch.stack(terms).sum() / self.images


def largest_of(
    loss: Callable[[], Tensor], parameters: Sequence[Tensor], seed: int, tolerance: float, most_steps: int
) -> Extremes:
    """Extreme eigenvalues of the Hessian of a loss over some parameters, the others held fixed.

    Args:
        loss: gives L, a scalar that can be differentiated twice.
        parameters: θ.
        seed: of the start vector.
        tolerance, most_steps: of Lanczos.
    """
    # Fused attention has no second derivative.
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        gradients = torch.autograd.grad(
            loss(), parameters, create_graph=True, allow_unused=True, materialize_grads=True
        )
        flat = torch.cat([g.reshape(-1) for g in gradients])

        def product(vector: Tensor) -> Tensor:
            if not flat.requires_grad:  # L does not depend on any of them
                return torch.zeros_like(vector)
            second = torch.autograd.grad(
                flat @ vector, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            return torch.cat([g.reshape(-1) for g in second]).detach()

        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(len(flat), generator=generator).to(flat.detach())
        return extremes(product, start, tolerance, most_steps)


def swept_rate(folder: Path, strategy: str) -> dict[str, Any] | None:
    """The learning rate that a comparison chose for a strategy: of the nearest ``comparison.json`` above the
    run that swept it; None where there is none."""
    for above in list(folder.resolve().parents)[:4]:
        path = above / "comparison.json"
        try:
            chosen = (read_json(path) or {})["methods"][strategy]["chosen"]
            rate = float(chosen["optimiser.lr"])
        except (UserError, ValueError, KeyError, TypeError):
            continue
        if math.isfinite(rate):
            return {"lr": rate, "file": str(path)}
    return None


def _strategy(state: State) -> Strategy:
    try:
        strategy = recorded(Strategy, state.config["strategy"])
    except ValidationError as error:
        raise damaged(state.folder.config, error) from None
    if strategy.adapter.kind == "none":
        raise UserError(
            f"{state.folder.root}: strategy '{strategy.name}' trains no weights of the towers (adapter.kind:"
            " none), so that there are no coordinates to measure the curvature in"
        )
    if strategy.plugin is not None:
        raise UserError(
            f"{state.folder.root}: strategy '{strategy.name}' has a plugin of its own, whose part in the"
            " start of a task is not known here"
        )
    return strategy


def _coordinates(strategy: Strategy) -> str:
    adapter = strategy.adapter
    if adapter.kind == "full":
        return "the parameters themselves"
    reduced = adapter.subspace.select != "none" and adapter.subspace.form == "reduced"
    told = "factors A and B" + (" in coordinates of the free subspace" if reduced else "")
    return f"{told}, as they start"


def _learner(state: State, strategy: Strategy, plans: Plans, pretrained: dict[str, Tensor]) -> Learner:
    """The parts of the strategy around the pretrained model, as a run has them before its first task."""
    state.loaded.model.load_state_dict(pretrained)
    device = next(state.loaded.model.parameters()).device
    inputs = RunInputs(
        state.scenario.value, strategy, state.results["seed"], state.loaded, plans, str(device)
    )
    checkpoints = Checkpoints(state.folder, math.inf, lambda line: None)
    return Learner(inputs, None, checkpoints, Stopping(), Quiet().step)


def _restore(learner: Learner, state: State, data: Any, position: int) -> None:
    """Bring the model and its parts to where they were when a task began.

    Raises:
        UserError: where parts of the adapter carried something that the run has let go of.
    """
    meet_plugins(learner.plugins, learner.model, data)
    if position == 0 or state.scenario.value.independent:
        return
    folder, done = state.folder, data.tasks[:position]
    last: TaskData = done[-1]
    absent = [task.name for task in done if not folder.delta(task.index, task.name).exists()]
    if absent:
        raise UserError(f"{folder.root}: task '{absent[0]}' is not finished")
    records = finished_records(folder, learner.run.plans, lambda line: None)[1 : position + 1]
    if len(records) < position:
        raise UserError(f"{folder.root}: records before '{data.tasks[position].name}' are gone")
    learner.restore(
        [load_delta(folder.delta(task.index, task.name)) for task in done],
        [record.adapter_state for record in records],
    )
    if plugins_intact(learner.plugins, folder, last.index, last.name):
        restore_plugins(learner.plugins, folder, done, learner.run.device)
    elif any(type(part).tensors is not CarryingPlugin.tensors for part in learner.adapter.carriers()):
        raise UserError(
            f"{folder.root}: where the factors of '{data.tasks[position].name}' start depends on what was"
            f" carried on after '{last.name}', which is not kept; ask about the first task"
        )


def _modules(learner: Learner) -> dict[str, list[nn.Parameter]]:
    """Module → what is trained of it: all of a low-rank block together, and every other parameter alone."""
    blocks = learner.adapter.blocks if isinstance(learner.adapter, CompLoRAPlugin) else {}
    found = {name: [p for p in block.parameters() if p.requires_grad] for name, block in blocks.items()}
    held = {id(p) for parameters in found.values() for p in parameters}
    # Under its name the same block may hang at several places of the model.
    inside = {id(p) for m in learner.model.modules() if isinstance(m, LowRankBlock) for p in m.parameters()}
    for name, parameter in learner.model.clip.named_parameters():
        if parameter.requires_grad and id(parameter) not in held | inside:
            found[name] = [parameter]
    return {name: parameters for name, parameters in found.items() if parameters}


def _each_once(modules: Iterable[Sequence[nn.Parameter]]) -> list[nn.Parameter]:
    """All coordinates, in order: what several modules share is one of them, not one in each."""
    return list({id(p): p for parameters in modules for p in parameters}.values())
