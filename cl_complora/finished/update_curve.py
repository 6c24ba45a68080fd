"""WiSE-FT along the update of a task: a run's stream measured with that update scaled from nothing to whole.

W(α) = W_0 + Σ_{i≠t} ΔW_i + α ΔW_t (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022,
equation 1, for a stream of one task).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..errors import UserError
from .evaluation import measure, sets_of
from .states import State, refuse_inexact

FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Curve:
    """A stream along the update of one task.

    Attributes:
        task: whose update is scaled.
        factors: α, ascending.
        accuracy: task or zero-shot set → a fraction for every factor.
        earlier, later: tasks with classes that were learned before and after it.
        zero_shot: names of the zero-shot sets.
    """

    task: str
    factors: tuple[float, ...]
    accuracy: dict[str, tuple[float, ...]]
    earlier: tuple[str, ...]
    later: tuple[str, ...]
    zero_shot: tuple[str, ...]

    def lines(self) -> dict[str, tuple[float, ...]]:
        """What is told of it: this task, the means of those before and after it, every zero-shot set."""
        groups = {"this task": (self.task,)}
        for name, tasks in (("earlier tasks", self.earlier), ("later tasks", self.later)):
            if tasks:
                groups[name] = tasks
        groups |= {f"zero-shot {name}": (name,) for name in self.zero_shot}
        return {
            name: tuple(float(value) for value in np.mean([self.accuracy[one] for one in members], axis=0))
            for name, members in groups.items()
        }


def curves_along(
    state: State,
    tasks: Sequence[str],
    factors: Sequence[float] = FACTORS,
    tell: Callable[[str], None] = lambda line: None,
    device: str | None = None,
) -> list[Curve]:
    """Measure the stream along the update of each of some tasks.

    Every point is built from the untouched weights in the order of the stream, so that α = 1 is the run's own
    state to the bit; a state that belongs to several curves is measured once.

    Args:
        state: of :func:`~cl_complora.finished.states.find_state`, with nothing merged, and so it is given
            back; its own factors hold for the other tasks.
        tasks: whose update is scaled; all of them must be in the state.
        factors: α; beyond 1 goes on in the direction of the update.
        tell: told before every measurement.
        device: where answers are computed; by default where the model is.

    Raises:
        UserError: for a task that the state does not hold, scales already or has no update of, for one of
            captions, and with other pictures than the run was made with.
    """
    for name in tasks:
        if name not in state.after:
            raise UserError(f"no task {name!r} among those merged: {', '.join(state.after) or 'none'}")
        if name in state.scale:
            raise UserError(
                f"task {name!r} is to be scaled by {state.scale[name]:g} and to have a curve; give one of"
                " the two"
            )
        if name in state.captioned:
            raise UserError(
                f"task {name!r} has pictures with captions and no classes; a curve goes by the answers among"
                f" classes, which {', '.join(with_classes(state)) or 'no task of this state'} can give"
            )
    for name in tasks:
        between = {**state.scale, name: 0.5}
        refuse_inexact(state.folder.root, state.config, state.scenario.value, between, state.after)
    sets = sets_of(state)
    model = state.loaded.model
    parameters = dict(model.named_parameters())
    home = next(iter(parameters.values())).device
    untouched = {name: value.detach().clone() for name, value in parameters.items()}
    chosen = tuple(sorted(set(factors)))
    measured: dict[tuple[float, ...], dict[str, float]] = {}

    @torch.no_grad()
    def put_back() -> None:
        for name, value in untouched.items():
            parameters[name].copy_(value)

    def at(task: str, factor: float) -> dict[str, float]:
        scaled = replace(state, scale={**state.scale, task: factor})
        point = tuple(scaled.scale.get(name, 1.0) for name in state.after)
        if point not in measured:
            tell(f"measuring {task} × {factor:g}")
            # Added up where eval adds them up: products have other last bits elsewhere.
            model.to(home)
            put_back()
            scaled.merge()
            model.to(device or home)
            heads = scaled.heads()
            asked = [replace(one, head=heads.get(one.name)) for one in sets]
            found = measure(state.loaded, asked, state.precision, state.batch_size)
            measured[point] = {one.name: one.accuracy for one in found}
        return measured[point]

    curves, learned = [], with_classes(state)
    try:
        for task in dict.fromkeys(tasks):
            points = [at(task, factor) for factor in chosen]
            accuracy = {one.name: tuple(point[one.name] for point in points) for one in sets}
            place = learned.index(task)
            earlier, later = tuple(learned[:place]), tuple(learned[place + 1 :])
            curves.append(
                Curve(task, chosen, accuracy, earlier, later, tuple(state.results["zero_shot_sets"]))
            )
    finally:
        model.to(home)
        put_back()
    return curves


def with_classes(state: State) -> list[str]:
    """Tasks in a state that have classes, and so an accuracy that can have a curve."""
    return [name for name in state.after if name not in state.captioned]


def each_task(state: State, tell: Callable[[str], None] = lambda line: None) -> list[str]:
    """Every task of a state that can have a curve.

    Args:
        state: as :func:`curves_along` takes it.
        tell: told which tasks have none, and why.

    Raises:
        UserError: where no task can have one.
    """
    classes = with_classes(state)
    if not classes:
        raise UserError("--curve each: this state's tasks have captions and no classes")
    captioned = [name for name in state.after if name not in classes]
    scaled = [name for name in classes if name in state.scale]
    if len(scaled) == len(classes):
        raise UserError(
            "--curve each: --without and --scale set the factor of every task that could have one"
        )
    for names, why in (
        (captioned, "captions, and no classes to choose among"),
        (scaled, "--without or --scale sets its factor at every point"),
    ):
        if names:
            tell(f"no curve of {', '.join(names)}: {why}")
    return [name for name in classes if name not in scaled]
