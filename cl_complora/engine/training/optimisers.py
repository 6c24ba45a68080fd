"""The optimiser of an experience: groups by rate, and a table from the names of the strategy file to what
they mean."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import torch
from prodigyopt import Prodigy
from schedulefree import AdamWScheduleFree
from torch import nn
from torch.optim import Optimizer

from ...clip.slots import open_slots
from ...config.training import Optimiser
from ...muon import Muon
from ..adapter import AdapterPlugin, clip_of
from ..full_parameters import tower_of
from .relative_step import move_relatively

Group = dict[str, Any]


class Together(Optimizer):
    """Several optimisers as one: their groups stand one after the other, and a step is one of each.

    Args:
        parts: over parameters of their own.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """The parts' groups and states are ours, which schedules and checkpoints read and write."""
        place = 0
        for part in self.parts:
            count = len(part.param_groups)
            part.param_groups, part.state = self.param_groups[place : place + count], self.state
            place += count

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in the base class, which puts new groups and states in place of the old."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of every part."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss


def optimizer_factory(
    settings: Optimiser, adapter: AdapterPlugin, model: nn.Module
) -> Callable[[list[nn.Parameter]], Optimizer]:
    """Parameters → optimiser, as the strategy file says.

    ``initial_lr`` of a group is what the schedule scales.
    """

    def make(parameters: list[nn.Parameter]) -> Optimizer:
        own = _own_rates(settings.rates, adapter, model)
        by_rate: dict[float, list[nn.Parameter]] = {}
        for p in parameters:
            by_rate.setdefault(own.get(id(p), settings.lr), []).append(p)
        groups = [{"params": members, "lr": lr, "initial_lr": lr} for lr, members in by_rate.items()]
        optimiser = _OPTIMISERS[settings.name](settings, groups, adapter, model)
        if settings.relative:
            move_relatively(optimiser, adapter)
        return optimiser

    return make


def _own_rates(rates: Mapping[str, float], adapter: AdapterPlugin, model: nn.Module) -> dict[int, float]:
    """``id`` of every trained parameter that ``rates`` name → its rate: that of its kind, else of its
    tower."""
    if not rates:
        return {}
    kinds = adapter.whole_kinds(model)
    own: dict[int, float] = {}
    for name, p in clip_of(model).named_parameters():
        for known in (kinds.get(id(p)), tower_of(name)):
            if p.requires_grad and known in rates:
                own.setdefault(id(p), rates[known])
    return own


def hidden_matrices(adapter: AdapterPlugin, model: nn.Module) -> set[int]:
    """``id`` of every parameter that Muon is for: low-rank factors, and the matrices inside a tower's blocks.

    What reads pixels and tokens or makes the embedding (patches, token embeddings, positions, the
    projections) is no hidden matrix.
    """
    clip, kinds = clip_of(model), adapter.whole_kinds(model)
    inside = {slot.parameter for slot in open_slots(clip) if slot.layer >= 0}
    return {
        id(p)
        for name, p in clip.named_parameters()
        if p.requires_grad and p.ndim == 2 and (id(p) not in kinds or name in inside)
    }


def _adam(kind: type[Optimizer]) -> Callable[..., Optimizer]:
    def make(settings: Optimiser, groups: list[Group], *rest) -> Optimizer:
        return kind(groups, lr=settings.lr, weight_decay=settings.weight_decay, betas=tuple(settings.betas))

    return make


def _sgd(settings: Optimiser, groups: list[Group], *rest) -> Optimizer:
    return torch.optim.SGD(
        groups, lr=settings.lr, weight_decay=settings.weight_decay, momentum=settings.momentum
    )


def _muon(settings: Optimiser, groups: list[Group], adapter: AdapterPlugin, model: nn.Module) -> Optimizer:
    hidden = hidden_matrices(adapter, model)
    split = [
        [group | {"params": [p for p in group["params"] if (id(p) in hidden) == wanted]} for group in groups]
        for wanted in (True, False)
    ]
    matrices, others = ([group for group in part if group["params"]] for part in split)
    parts: list[Optimizer] = []
    if matrices:
        how = {"momentum": settings.momentum, "adjust": settings.adjust}
        parts.append(Muon(matrices, settings.lr, weight_decay=settings.weight_decay, **how))
    if others:
        parts.append(_adam(torch.optim.AdamW)(settings, others))
    return Together(parts)


def _prodigy(settings: Optimiser, groups: list[Group], *rest) -> Optimizer:
    """One Prodigy for every rate, which is a factor on the step size that it finds for its own parameters (a
    single one refuses more than one rate)."""
    how = {"betas": tuple(settings.betas), "weight_decay": settings.weight_decay}
    # What its authors advise where the rate warms up and decays.
    how |= {"use_bias_correction": True, "safeguard_warmup": True}
    with redirect_stdout(io.StringIO()):  # it prints a line where there is weight decay
        return Together([Prodigy([group], lr=group["lr"], **how) for group in groups])


_OPTIMISERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": _adam(torch.optim.AdamW),
    "adam": _adam(torch.optim.Adam),
    "sgd": _sgd,
    "muon": _muon,
    "prodigy": _prodigy,
    "schedule-free": _adam(AdamWScheduleFree),
}
