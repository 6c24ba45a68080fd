"""A strategy file made into plugins: one table from the parts of the schema to the classes that do them."""

from __future__ import annotations

from avalanche.training.plugins import SupervisedPlugin

from ..config.strategy import Adapter, Strategy
from ..errors import UserError
from ..subspace import Keep
from .adapter import AdapterPlugin, FrozenPlugin, FullPlugin
from .plugin import CompLoRAPlugin
from .regularisers import EwcPlugin, L2InitPlugin, LwfPlugin, RegulariserPlugin
from .replay import ReplayPlugin
from .subspaces import Constraint


def build_adapter(settings: Adapter, seed: int) -> AdapterPlugin:
    """The part that says which weights move."""
    return _ADAPTERS[settings.kind](settings, seed)


def _low_rank(settings: Adapter, seed: int) -> CompLoRAPlugin:
    subspace = settings.subspace
    return CompLoRAPlugin(
        rank=settings.rank,
        scaling=settings.scale,
        dropout=settings.dropout,
        matrices=settings.matrices,
        towers=settings.towers,
        layers=settings.layers,
        seed=seed,
        constraint=Constraint(
            select=subspace.select,
            keep=Keep(*subspace.keep.rule),
            sides=subspace.sides,
            of=subspace.of,
            updates="updates" in subspace.protect,
            reduced=subspace.form == "reduced",
        ),
    )


_ADAPTERS = {
    "lowrank": _low_rank,
    "full": lambda settings, seed: FullPlugin(settings.towers),
    "none": lambda settings, seed: FrozenPlugin(),
}

_REGULARISERS: dict[str, type[RegulariserPlugin]] = {"ewc": EwcPlugin, "lwf": LwfPlugin, "l2-init": L2InitPlugin}


def build_plugins(strategy: Strategy, adapter: AdapterPlugin, seed: int) -> list[SupervisedPlugin]:
    """Regularisers and memory of a strategy, in the order of the file."""
    plugins: list[SupervisedPlugin] = [_REGULARISERS[part.kind](part, adapter, seed) for part in strategy.regularisers]
    if strategy.memory is not None:
        plugins.append(ReplayPlugin(strategy.memory, seed))
    return plugins


def check_fits(strategy: Strategy, adapter: AdapterPlugin, model) -> None:
    """Find out before any work whether the adapter finds its matrices in the model.

    Raises:
        UserError: naming what the model has.
    """
    try:
        adapter.prepare(model)
    except ValueError as error:
        raise UserError(f"strategy '{strategy.name}': adapter: {error}") from None
