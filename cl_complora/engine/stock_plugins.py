"""Which of Avalanche's own plugins can stand beside an adapter that trains factors and merges them.

A stock plugin knows only ``model.named_parameters()``: while an experience is trained these are frozen
weights and factors that start anew, and afterwards merged weights without factors. What that means differs:

* the plugin asks nothing of the parameters (data, schedules, metrics), or works with gradients and outputs of
  the moment: it works as it is;
* it holds weights near those of earlier experiences: see
  :mod:`~cl_complora.engine.updates.effective_penalty`;
* it follows parameters across experiences, puts another model or other weights in place, or wants a part
  which the model lacks: it would crash late or change nothing, and is refused before anything is trained.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from avalanche.benchmarks import CLExperience
from avalanche.core import BasePlugin
from avalanche.models import FeCAMClassifier, NCMClassifier
from torch import nn

from ..clip.classifier import ClipClassifier
from ..errors import UserError, raise_all

_PACKAGE = "avalanche.training.plugins"

WORKING = frozenset(
    {
        "AGEMPlugin",
        "Clock",
        "EarlyStoppingPlugin",
        "EvaluationPlugin",
        "GSS_greedyPlugin",
        "LRSchedulerPlugin",
        "LwFPlugin",
        "ReplayPlugin",
        "TrainGeneratorAfterExpPlugin",
    }
)
"""They work as they are, in any order."""

PENALTIES = frozenset({"EWCPlugin", "MASPlugin"})
"""Made to act on effective weights; they must stand after the adapter, which merges first."""


def _always(plugin: BasePlugin, model: nn.Module) -> bool:
    return True


@dataclass(frozen=True)
class Refusal:
    """Why a stock plugin cannot be used.

    Attributes:
        why: what would happen.
        instead: what to use.
        applies: (plugin, model) → whether it is so here.
    """

    why: str
    instead: str
    applies: Callable[[BasePlugin, nn.Module], bool] = _always


_TASK_LABELS = frozenset({"LwFPlugin", "CurrentDataNCMUpdate", "MemoryNCMUpdate", "NCMOracle"}) | frozenset(
    {"CurrentDataFeCAMUpdate", "MemoryFeCAMUpdate", "FeCAMOracle"}
)
"""They read task labels off the data when an experience has been trained, and would fail only then."""

_TRAJECTORY = Refusal(
    "it follows every weight's own gradients along the way, but only the factors have gradients here, and"
    " they are merged and gone when it looks for them",
    "EWCPlugin or MASPlugin, whose penalties act on the merged weights, or `kind: ewc` under regularisers in"
    " a strategy file",
)
_OTHER_MODEL = "ReplayPlugin, or `stream: cumulative` under training in a strategy file"
_LAST_LAYER = "ClipClassifier's text head as it is, which has no weights of its own; ReplayPlugin to rehearse"


def _of_classifier(kind: type[nn.Module]) -> Callable[[BasePlugin, nn.Module], bool]:
    return lambda plugin, model: not isinstance(getattr(model, "eval_classifier", None), kind)


def _means(name: str, kind: type[nn.Module]) -> Refusal:
    return Refusal(
        f"it keeps class means in model.eval_classifier, and this model has no {name} there",
        f"a TrainEvalModel with a {name} around the encoder, or ClipClassifier's own text head without it",
        _of_classifier(kind),
    )


REFUSED = {
    "SynapticIntelligencePlugin": _TRAJECTORY,
    "RWalkPlugin": _TRAJECTORY,
    "LFLPlugin": Refusal(
        "it needs get_features() of Avalanche's BaseModel and freezes the last layer, factors and all",
        "LwFPlugin, or `kind: lwf` under regularisers in a strategy file",
    ),
    "FeatureDistillationPlugin": Refusal(
        "it compares model.features, which a ClipClassifier does not leave behind",
        "LwFPlugin, or `kind: lwf` or `kind: reference` under regularisers in a strategy file",
        lambda plugin, model: isinstance(model, ClipClassifier),
    ),
    "GDumbPlugin": Refusal(
        "it puts a copy of the first model in the place of the one that carries the factors, so nothing that"
        " is trained would be merged",
        _OTHER_MODEL,
    ),
    "FromScratchTrainingPlugin": Refusal(
        "it resets the weights at the start of every experience and with them all that was merged",
        "a new model, adapter and strategy per experience",
    ),
    "CWRStarPlugin": Refusal(
        "it overwrites the rows of the model's last linear layer, which in a text-head model is one inside a"
        " tower, and freezes everything else, the factors too",
        _LAST_LAYER,
    ),
    "CoPEPlugin": Refusal(
        "it replaces the model's last linear layer and the loss, and in a text-head model that layer is one"
        " inside a tower",
        _LAST_LAYER,
    ),
    "BiCPlugin": Refusal(
        "it corrects the outputs in the strategy's own evaluation only, so the merged weights would not"
        " be what was measured, and that of avalanche-lib 0.6 ends in a TypeError with a current torch",
        "ReplayPlugin, or LwFPlugin",
    ),
    "MIRPlugin": Refusal(
        "it differentiates by all parameters, and those under the factors are frozen",
        "ReplayPlugin or AGEMPlugin",
    ),
    "RARPlugin": Refusal(
        "it traces the model for a layer's features, which a text-head model does not allow, and clamps"
        " normalised images to [0, 1]",
        "RARPlugin(…, use_adversarial_replay=False) or ReplayPlugin",
        lambda plugin, model: plugin.use_adversarial_replay,
    ),
    "GEMPlugin": Refusal(
        "it needs the solver quadprog from the second experience on, and that is not installed",
        "AGEMPlugin, or install quadprog",
        lambda plugin, model: find_spec("quadprog") is None,
    ),
    "GenerativeReplayPlugin": Refusal(
        "it has no generator_strategy and this model has no generate()",
        "GenerativeReplayPlugin(generator_strategy=…) or ReplayPlugin",
        lambda plugin, model: not hasattr(plugin.generator or model, "generate"),
    ),
    "CurrentDataNCMUpdate": _means("NCMClassifier", NCMClassifier),
    "MemoryNCMUpdate": _means("NCMClassifier", NCMClassifier),
    "NCMOracle": _means("NCMClassifier", NCMClassifier),
    "CurrentDataFeCAMUpdate": _means("FeCAMClassifier", FeCAMClassifier),
    "MemoryFeCAMUpdate": _means("FeCAMClassifier", FeCAMClassifier),
    "FeCAMOracle": _means("FeCAMClassifier", FeCAMClassifier),
}
"""Refused where ``applies`` says so; they work elsewhere."""


def stock_kind(plugin: type) -> str | None:
    """Name of the Avalanche plugin that this class is, or is derived from; None for anybody else's."""
    for base in plugin.__mro__:
        if base.__module__.startswith(f"{_PACKAGE}."):
            return base.__name__
    return None


def check_neighbours(adapter: BasePlugin, plugins: list, model: nn.Module) -> list:
    """Refuse, before training, every stock plugin that would crash later or do nothing beside ``adapter``.

    Plugins of anybody else pass unseen; one that Avalanche has and this page does not know is warned about.

    Args:
        adapter: trains factors and merges them.
        plugins: of the strategy, the adapter among them.
        model: of the strategy.

    Returns:
        The plugins whose penalty has to be moved to effective weights.

    Raises:
        UserError: naming each one that cannot be used, why, and what to use instead.
    """
    own, faults, penalties = type(adapter).__name__, [], []
    place = next(i for i, plugin in enumerate(plugins) if plugin is adapter)
    for i, plugin in enumerate(plugins):
        kind = stock_kind(type(plugin))
        name = type(plugin).__name__ + (f" (a {kind})" if kind and type(plugin).__name__ != kind else "")
        if kind in PENALTIES:
            penalties.append(plugin)
            if i < place:
                faults.append(
                    f"{name} stands before {own} and would see factors instead of the merged weights when an"
                    f" experience ends; put it after: plugins=[{own}(…), {type(plugin).__name__}(…)]"
                )
        elif kind in REFUSED and REFUSED[kind].applies(plugin, model):
            refusal = REFUSED[kind]
            faults.append(
                f"{name} cannot be used beside {own}: {refusal.why}; use instead: {refusal.instead}"
            )
        elif kind and kind not in WORKING and kind not in REFUSED:
            warnings.warn(
                f"{name} of this version of Avalanche has not been tried beside {own}", stacklevel=2
            )
    raise_all(faults)
    return penalties


def check_data(plugins: list, experience: CLExperience) -> None:
    """Refuse, before an experience is trained, data that a stock plugin cannot use when it ends.

    Raises:
        UserError: naming the plugin and what makes such a data set.
    """
    needing = [type(plugin).__name__ for plugin in plugins if stock_kind(type(plugin)) in _TASK_LABELS]
    if needing and not hasattr(experience.dataset, "task_set"):
        raise UserError(
            f"{' and '.join(needing)} reads task labels when an experience ends, and its data set, a"
            f" {type(experience.dataset).__name__}, has none: make it with Avalanche's"
            " as_taskaware_classification_dataset"
        )
