"""A strategy file made into plugins: tables from the parts of the schema to the classes that do them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from avalanche.training.plugins import SupervisedPlugin

from ..clip.blocks import blocks_of
from ..config.adaptation import Adapter, Merge
from ..config.heads import Head
from ..config.plugin_file import plugin_told
from ..config.strategy import Strategy
from ..errors import UserError, raise_all
from ..subspace import Keep
from .adapter import AdapterPlugin, FrozenPlugin, FullPlugin, Merging
from .constraints import Constraint
from .external_plugin import build_external, told_of_plugin
from .fitting.fitting import HeadFitting
from .fitting.lfa import LfaFitting
from .fitting.linear_head import LinearHeadFitting
from .fitting.linear_probe import LinearProbeFitting
from .fitting.lp_plus_plus import LpPlusPlusFitting
from .fitting.nearest_mean import NearestMeanFitting
from .fitting.rada import RAdaFitting
from .fitting.ridge import RidgeFitting
from .fitting.tip_adapter import TipAdapterFitting
from .full_parameters import KINDS
from .penalties.dense_regions import CropsPlugin, DenseRegionsPlugin
from .penalties.distillation import LwfPlugin, ReferencePlugin, SimilaritiesPlugin
from .penalties.ewc import EwcPlugin
from .penalties.logit_terms import ConsistencyPlugin, DiversityPlugin, SpectrumPlugin
from .penalties.random_sentences import RandomSentencesPlugin
from .penalties.text_to_image import TextToImagePlugin
from .regularisers import L2InitPlugin, OrthogonalPlugin, RegulariserPlugin
from .replay import ReplayPlugin
from .training.schedule import AveragePlugin
from .updates.between import Between, GatesPlugin
from .updates.boosters import BoostersPlugin
from .updates.budget import BudgetPlugin, OrthonormalPlugin
from .updates.complora import CompLoRAPlugin
from .updates.directions import DirectionsPlugin
from .updates.experts import ApartPlugin, ExpertsPlugin
from .updates.full_gradient import FullGradientPlugin
from .updates.head_choice import HeadsPlugin
from .updates.merging import Interpolate, MatchNorm, MergeImageTower
from .updates.pruning import PruningPlugin
from .updates.starts.gradient_components import GradientComponentsStarting
from .updates.starts.gradient_start import GradientStarting
from .updates.starts.initialisation import ComponentsStarting, CoreStarting, NormalStarting, Starting
from .updates.starts.inputs_start import InputsStarting
from .updates.starts.variance_start import VarianceStarting
from .updates.weight_noise import WeightNoisePlugin

_STARTS = {
    "kaiming": lambda settings: Starting(),
    "normal": NormalStarting,
    "core": lambda settings: CoreStarting(),
    "components": lambda settings: ComponentsStarting(settings.which == "largest"),
    "inputs": InputsStarting,
    "gradient": GradientStarting,
    "variance": VarianceStarting,
    "gradient-components": GradientComponentsStarting,
}

_BETWEEN: dict[str, Callable[..., Between]] = {
    "gates": GatesPlugin,
    "directions": lambda settings, seed: DirectionsPlugin(settings),
    "heads": lambda settings, seed: HeadsPlugin(settings),
    "boosters": BoostersPlugin,
    "budget": lambda settings, seed: BudgetPlugin(settings),
    "experts": ExpertsPlugin,
}

# Of what a learning-rate-free optimiser finds: rates of others are a hundred times smaller.
_SMALL_FACTOR = 0.05

_MERGES = {"interpolate": Interpolate, "norm": MatchNorm, "image-tower": MergeImageTower}

_REGULARISERS: dict[str, type[RegulariserPlugin]] = {
    "ewc": EwcPlugin,
    "lwf": LwfPlugin,
    "similarities": SimilaritiesPlugin,
    "sentences": RandomSentencesPlugin,
    "text-to-image": TextToImagePlugin,
    "l2-init": L2InitPlugin,
    "reference": ReferencePlugin,
    "orthogonal": OrthogonalPlugin,
    "orthonormal": OrthonormalPlugin,
    "consistency": ConsistencyPlugin,
    "diversity": DiversityPlugin,
    "spectrum": SpectrumPlugin,
    "apart": ApartPlugin,
    "regions": DenseRegionsPlugin,
    "crops": CropsPlugin,
}

_HEADS: dict[str, type[HeadFitting]] = {
    "linear-probe": LinearProbeFitting,
    "nearest-mean": NearestMeanFitting,
    "linear": LinearHeadFitting,
    "lp++": LpPlusPlusFitting,
    "ridge": RidgeFitting,
    "tip-adapter": TipAdapterFitting,
    "rada": RAdaFitting,
    "lfa": LfaFitting,
}


def build_head(settings: Head | None, seed: int, shared: bool) -> HeadFitting | None:
    """The part that fits a head, where a strategy has one.

    Args:
        settings: of the strategy's ``head``.
        seed: of the run.
        shared: whether the tasks of the scenario share one label space, and so a head.
    """
    return None if settings is None else _HEADS[settings.kind](settings, seed, shared)


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
        start=_STARTS[settings.start.kind](settings.start),
        whole=settings.whole or (),
        merging=_merging(settings.merge),
        depth_scale=settings.depth_scale,
        own_masks=settings.dropout_masks == "separate",
        between=None if settings.between is None else _BETWEEN[settings.between.kind](settings.between, seed),
        row_scale=settings.row_scale,
        rank_last=settings.rank_last,
        constraint=Constraint(
            select=subspace.select,
            keep=Keep(*subspace.keep.rule),
            sides=subspace.sides,
            of=subspace.of,
            updates="updates" in subspace.protect,
            reduced=subspace.form == "reduced",
        ),
    )


def _full(settings: Adapter, seed: int) -> FullPlugin:
    return FullPlugin(settings.towers, settings.whole or KINDS, _merging(settings.merge))


def _merging(settings: Merge | None) -> Merging | None:
    return None if settings is None else _MERGES[settings.kind](settings)


_ADAPTERS = {"lowrank": _low_rank, "full": _full, "none": lambda settings, seed: FrozenPlugin()}


def build_plugins(
    strategy: Strategy,
    adapter: AdapterPlugin,
    seed: int,
    folder: Path | None = None,
    head: HeadFitting | None = None,
) -> list[SupervisedPlugin]:
    """Regularisers, memory and whatever else a strategy names, in the order of the file.

    Args:
        strategy: settings.
        adapter: from :func:`build_adapter`.
        seed: of the run.
        folder: where a plugin from outside may lie; None where the user did not allow any.
        head: from :func:`build_head`.
    """
    plugins: list[SupervisedPlugin] = []
    if strategy.training.average_every is not None:
        plugins.append(AveragePlugin(strategy.training.average_every))
    plugins += [_REGULARISERS[part.kind](part, adapter, seed) for part in strategy.regularisers]
    if strategy.memory is not None:
        plugins.append(ReplayPlugin(strategy.memory, seed))
    plugins += adapter.carriers()
    if head is not None:
        plugins.append(head)
    if strategy.training.weight_noise is not None:
        plugins.append(WeightNoisePlugin(strategy.training.weight_noise, adapter, seed))
    if strategy.adapter.pruning is not None:
        plugins.append(PruningPlugin(strategy.adapter.pruning, adapter))
    if strategy.adapter.full_gradient is not None:
        plugins.append(FullGradientPlugin(tuple(strategy.adapter.full_gradient.betas), adapter))
    if strategy.plugin is not None:
        plugins.append(build_external(strategy, adapter, seed, folder))
    return plugins


@dataclass(frozen=True)
class Parts:
    """The parts of a strategy, as they are before the first task.

    Attributes:
        adapter: says which weights move.
        head: fits what answers in place of texts; None where texts answer.
        plugins: as of :func:`build_plugins`.
        notes: a line for whatever of the strategy does nothing with the model, or is odd.
    """

    adapter: AdapterPlugin
    head: HeadFitting | None
    plugins: list[SupervisedPlugin]
    notes: list[str]


def build_parts(strategy: Strategy, model, seed: int, folder: Path | None, shared: bool) -> Parts:
    """Adapter, head and plugins, which find in the model what they need.

    Args:
        strategy: settings.
        model: the classifier.
        seed: of the run.
        folder: where a plugin from outside may lie; None where the user did not allow any.
        shared: whether the tasks of the scenario share one label space.

    Raises:
        UserError: naming what does not fit, and what the model has.
    """
    adapter = build_adapter(strategy.adapter, seed)
    head = build_head(strategy.head, seed, shared)
    notes = check_fits(strategy, adapter, model, head)
    plugins = build_plugins(strategy, adapter, seed, folder, head)
    notes += check_regularisers(strategy, plugins, model, adapter)
    return Parts(adapter, head, plugins, notes)


def check_fits(
    strategy: Strategy, adapter: AdapterPlugin, model, head: HeadFitting | None = None
) -> list[str]:
    """Find out before any work whether adapter and head find what they need in the model.

    Returns:
        A line for a tower that stays as it is although both are adapted by default, and for odd rates and
        ranks.

    Raises:
        UserError: naming what the model has, or the tower that the strategy names in vain.
    """
    try:
        adapter.prepare(model)
    except ValueError as error:
        raise UserError(f"strategy '{strategy.name}': adapter: {error}") from None
    try:
        if head is not None:
            head.fits(model)
    except ValueError as error:
        raise UserError(f"strategy '{strategy.name}': head: {error}") from None
    notes = [_idle(strategy, tower) for tower in adapter.idle_towers(model)]
    if notes and "towers" in strategy.adapter.model_fields_set:
        raise_all(notes)
    _check_rates(strategy, adapter.idle_towers(model))
    notes += _odd_rate(strategy) + _odd_rank(strategy, adapter)
    carrying = head is not None and head.shared and "drift" in strategy.head.model_fields_set
    idle = {
        "drift": carrying and strategy.head.drift is not None,
        "with_untouched": getattr(strategy.head, "with_untouched", False),
    }
    if adapter.moved_towers(model) <= {"text"}:
        no_effect = "has no effect where nothing of the image tower is trained"
        notes += [f"head.{setting} {no_effect}" for setting, said in idle.items() if said]
    _refuse_no_direction(strategy, adapter)
    towers = {"image": model.clip.visual, "text": getattr(model.text.tower, "transformer", model.text.tower)}
    for name, tower in towers.items():
        if strategy.training.checkpointing and not blocks_of(tower)[1]:
            raise UserError(
                f"strategy '{strategy.name}': training.checkpointing: the {name} tower is no list of blocks; "
                "training.chunk saves memory with every tower"
            )
    return notes


def check_regularisers(
    strategy: Strategy, plugins: Sequence[SupervisedPlugin], model, adapter: AdapterPlugin
) -> list[str]:
    """Find out before any work whether regularisers find what they need in the model.

    Returns:
        A line for each that has no effect since this model's image tower has nothing to adapt.

    Raises:
        UserError: naming the regulariser or the user's own plugin, and what the model or the adapter lacks.
    """
    still, notes = adapter.moved_towers(model) <= {"text"}, []
    for plugin in plugins:
        if not isinstance(plugin, RegulariserPlugin):
            continue
        if plugin.through_images and still:
            kind = plugin.settings.kind
            other = "; texts_of: student reads its texts" if hasattr(plugin.settings, "texts_of") else ""
            notes.append(
                f"strategy '{strategy.name}': regularisers: {kind} has no effect where nothing of the image"
                f" tower is trained{other}"
            )
        users = strategy.plugin is not None and plugin is plugins[-1]
        with told_of_plugin(strategy, plugin) if users else nullcontext():
            try:
                plugin.fits(model)
            except ValueError as error:
                if users:
                    raise UserError(f"{plugin_told(strategy)}: {error}") from None
                kind = plugin.settings.kind
                raise UserError(f"strategy '{strategy.name}': regularisers: {kind} {error}") from None
    if "vision" not in adapter.idle_towers(model):  # the strategy asks for it, and not the model
        raise_all(notes)
    return notes


def _check_rates(strategy: Strategy, idle: Sequence[str]) -> None:
    rates = strategy.optimiser.rates if strategy.optimiser is not None else {}
    raise_all(
        [
            f"strategy '{strategy.name}': optimiser.rates.{tower}: has no effect: of this model's {tower}"
            " tower nothing can be adapted"
            for tower in idle
            if tower in rates
        ]
    )


def _odd_rate(strategy: Strategy) -> list[str]:
    optimiser = strategy.optimiser
    if optimiser is None or optimiser.name != "prodigy" or optimiser.lr >= _SMALL_FACTOR:
        return []
    return [
        f"strategy '{strategy.name}': optimiser.lr: {optimiser.lr:g} is a factor on the step size that"
        " prodigy finds by itself, for which 1 is usual"
    ]


def _refuse_no_direction(strategy: Strategy, adapter: AdapterPlugin) -> None:
    """Refuse a share of the leading directions that comes to none of any matrix."""
    if not isinstance(adapter, CompLoRAPlugin) or adapter.constraint.select != "top" or not adapter.slots:
        return
    keep, sides = adapter.constraint.keep, [min(slot.weight.shape) for slot in adapter.slots]
    if keep.kind == "fraction" and int(keep.value * max(sides)) < 1:
        raise UserError(
            f"strategy '{strategy.name}': adapter.subspace.keep.fraction: {keep.value:g} of at most"
            f" {max(sides)} directions is none, and nothing would be trained"
        )


def _odd_rank(strategy: Strategy, adapter: AdapterPlugin) -> list[str]:
    # NuSA-CL's rank is the most that it may take.
    if not isinstance(adapter, CompLoRAPlugin) or adapter.constraint.select == "bottom":
        return []
    most = max((min(slot.weight.shape) for slot in adapter.slots), default=adapter.rank)
    if adapter.rank <= most:
        return []
    return [
        f"strategy '{strategy.name}': adapter.rank: {adapter.rank} is more than any of the adapted matrices"
        f" can have ({most}): no update reaches further for it"
    ]


def _idle(strategy: Strategy, tower: str) -> str:
    settings = strategy.adapter
    chosen = {"whole": settings.whole or (list(KINDS) if settings.kind == "full" else None)}
    if settings.kind == "lowrank":
        chosen |= {"matrices": settings.matrices, "layers": settings.layers}
    told = ", ".join(
        f"{key}: [{', '.join(map(str, value))}]" if isinstance(value, list) else f"{key}: {value}"
        for key, value in chosen.items()
        if value
    )
    other = "text" if tower == "vision" else "vision"
    name = "image" if tower == "vision" else "text"
    dropped = tower == "vision" and settings.merge_kind == "image-tower"
    lost = ", and merge: {kind: image-tower} keeps nothing of what that one learns" if dropped else ""
    return (
        f"strategy '{strategy.name}': adapter.towers: of this model's {name} tower ({tower}) nothing can be"
        f" adapted with {told}; only the other one is ([{other}]){lost}"
    )
