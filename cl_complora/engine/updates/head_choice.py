"""Image-LoRA: updates of the rows of those attention heads that the coming task would change most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...clip.attention import SplitAttention
from ...clip.slots import Slot
from ...config.factors import Heads
from ..adapter import clip_of
from .between import Between
from .gradients import each_gradient


class ChosenRows(nn.Module):
    """(s·B, A) → (γ/√H · s·B on the rows of H heads and zero on the others, A) with a trained γ.

    Args:
        heads: of the matrix, how many.
        chosen: indices of those that are updated.
        rows: of the matrix.
        gain: γ at the start.
    """

    def __init__(self, heads: int, chosen: Sequence[int], rows: int, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.share = 1.0 / math.sqrt(max(1, len(chosen)))
        updated = torch.zeros(heads)
        updated[list(chosen)] = 1.0
        self.register_buffer("rows", updated.repeat_interleave(rows // heads)[:, None], persistent=False)

    def forward(self, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """``out × r``, ``r × in`` → the same shapes."""
        return self.gain * self.share * self.rows * b, a


class HeadsPlugin(Between, supports_distributed=False):
    """Image-LoRA (its authors' code): A is shared by the chosen heads of a matrix, every head has rows of B.

    A gate 1 + g_h on what head h of a matrix gives tells how much it matters: before every task its score is
    Σ over batches of (∂L/∂g_h)² at g = 0, on the merged model.
    """

    def __init__(self, settings: Heads) -> None:
        super().__init__()
        self.settings = settings
        self.chosen: dict[str, list[int]] = {}

    def check(self, slots: Sequence[Slot]) -> None:
        """The number of heads has to be known."""
        for slot in slots:
            if not isinstance(slot.host, SplitAttention):
                raise ValueError(f"between.kind: heads: the number of heads of {slot.name} is not known")

    def look_ahead(self, slots: Sequence[Slot], model: nn.Module, experience) -> None:
        """Score all heads, and choose."""
        scores = {slot.name: torch.zeros(slot.host.num_heads, dtype=torch.float64) for slot in slots}
        held = dict(clip_of(model).named_parameters())
        read = {slot.name: [slot.parameter, slot.parameter.removesuffix("weight") + "bias"] for slot in slots}
        names = [name for name in dict.fromkeys(sum(read.values(), [])) if name in held]

        def add(found: Mapping[str, Tensor]) -> None:
            for slot in slots:
                there = [name for name in read[slot.name] if name in found]
                parts = [(held[name].detach()[slot.rows], found[name][slot.rows]) for name in there]
                if parts:
                    scores[slot.name] += gate_gradients(parts, slot.host.num_heads).cpu().square()

        each_gradient(names, model, experience, self.settings.batch_size, add)
        count = round(self.settings.share * sum(len(found) for found in scores.values()))
        self.chosen = chosen_heads(scores, max(1, count), self.settings.power)

    def of(self, slot: Slot, rank: int) -> nn.Module:
        """The rows of the slot's chosen heads."""
        heads = slot.host.num_heads
        return ChosenRows(heads, self.chosen[slot.name], len(slot.weight), self.settings.gain)


def gate_gradients(parts: Sequence[tuple[Tensor, Tensor]], heads: int) -> Tensor:
    """∂L/∂g of gates 1 + g on the heads of a linear map at g = 0, ``(heads,)``: a gate scales the head's rows
    of weight and bias, so it is Σ over these rows of value times gradient.

    Args:
        parts: (value, gradient) of weight and bias, or of the weight alone.
        heads: that the rows are divided into.
    """
    return torch.stack([(v * g).double().reshape(heads, -1).sum(1) for v, g in parts]).sum(0)


def chosen_heads(scores: Mapping[str, Tensor], count: int, power: float) -> dict[str, list[int]]:
    """The heads of every matrix that are updated, ascending: those of largest score.

    A matrix gets round(count · m^power / Σ m^power) of them, m the sum of its scores, at most all. What is
    missing from ``count`` is given to matrices of largest m, what is too much taken from those of smallest,
    one each, again and again (the authors' program stops after one round).
    """
    mass = {name: float(found.clamp_min(0).sum()) for name, found in scores.items()}
    most = {name: len(found) for name, found in scores.items()}
    count = min(count, sum(most.values()))
    if sum(mass.values()) > 0:
        weight = {name: max(m, 1e-12) ** power for name, m in mass.items()}
    else:
        weight = {name: float(number) for name, number in most.items()}
    share = count / sum(weight.values())
    budget = {name: min(most[name], math.floor(share * weight[name] + 0.5)) for name in scores}
    by_mass = sorted(scores, key=lambda name: -mass[name])
    while (missing := count - sum(budget.values())) != 0:
        step = 1 if missing > 0 else -1
        ends = most if step > 0 else dict.fromkeys(most, 0)
        for name in [name for name in by_mass[::step] if budget[name] != ends[name]][: abs(missing)]:
            budget[name] += step
    return {
        name: sorted(found.argsort(descending=True, stable=True)[: budget[name]].tolist())
        for name, found in scores.items()
    }
