"""What of a strategy can be tuned, and in which order: rates, steps and energy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..config import load_strategy
from ..config.loading import setting_faults
from .search import Axis
from .trials import SHORT_KEYS

# Setting → level → value; level 0 is the value that the strategy has.
Grid = dict[str, dict[int, float]]

# Rates are tried at quarters of a decade, at most two decades from where they stand.
PER_DECADE, FARTHEST = 4, 8
ENERGIES = (0.5, 0.75, 0.9)
STEPS, EPOCHS, ENERGY = "training.steps", "training.epochs", SHORT_KEYS["energy"]


def grid_of(name: str, overrides: Sequence[str], images: Sequence[int]) -> Grid:
    """What of a strategy can be tuned: none of what it does not have.

    Args:
        name: of the strategy, or its path.
        overrides: settings that go before.
        images: training images of every task.
    """
    strategy = load_strategy(name, overrides).value
    if strategy.optimiser is None:
        return {}
    found = {}
    rates = {SHORT_KEYS["lr"]: strategy.optimiser.lr} if strategy.lr_is_used else {}
    rates |= {f"optimiser.rates.{name}": rate for name, rate in strategy.optimiser.rates.items()}
    for key, rate in rates.items():
        levels = range(-FARTHEST, FARTHEST + 1)
        found[key] = {at: float(f"{rate * 10 ** (at / PER_DECADE):.3g}") if at else rate for at in levels}
    training = strategy.training
    if training.steps != "auto":
        found[STEPS] = {-1: math.ceil(training.steps / 2), 0: training.steps, 1: 2 * training.steps}
    else:
        epochs = {at: training.epochs * 2.0**at for at in (-1, 0, 1)}
        steps = {
            at: [training.model_copy(update={"epochs": n}).steps_for(count) for count in images]
            for at, n in epochs.items()
        }
        # Within the same bounds other epochs may be the same steps.
        found[EPOCHS] = {at: n for at, n in epochs.items() if not at or steps[at] != steps[0]}
    keep = strategy.adapter.subspace.keep
    if strategy.adapter.kind == "lowrank" and strategy.adapter.subspace.select != "none" and keep.energy:
        values = sorted({*ENERGIES, keep.energy})
        found[ENERGY] = {at - values.index(keep.energy): value for at, value in enumerate(values)}
    return {
        key: taken for key, levels in found.items() if len(taken := _taken(name, overrides, key, levels)) > 1
    }


def _taken(name: str, overrides: Sequence[str], key: str, levels: Mapping[int, float]) -> dict[int, float]:
    """The values that are others than it has, and that the strategy takes (averaging needs some steps)."""
    return {
        at: value
        for at, value in levels.items()
        if not at or (value != levels[0] and not setting_faults(name, overrides, key, value))
    }


def axes_of(grid: Grid) -> list[Axis]:
    """All rates by one factor, which another model or other data ask for first; steps; energy; then every
    rate by itself."""
    keys = list(grid)
    rates = tuple(place for place, key in enumerate(keys) if key.startswith("optimiser."))
    found = [Axis("rate" if len(rates) == 1 else "all rates", rates, (2, 1))] if rates else []
    found += [
        Axis(keys[place].rpartition(".")[2], (place,)) for place in range(len(keys)) if place not in rates
    ]
    if len(rates) > 1:
        found += [Axis(keys[place], (place,), (2, 1)) for place in rates]
    return found
