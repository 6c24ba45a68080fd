"""What moves during a task: the part every adapter plugin has in common, full fine-tuning, and nothing at all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn

from ..clip.classifier import ClipClassifier
from ..lowrank import TaskDelta


def clip_of(model: nn.Module) -> nn.Module:
    """The module whose parameter names deltas use: the open_clip model itself where there is a classifier around it."""
    return model.clip if isinstance(model, ClipClassifier) else model


class AdapterPlugin(SupervisedPlugin, supports_distributed=False):
    """Makes some weights trainable for an experience and afterwards folds what was learned into the model.

    Attributes:
        deltas: one :class:`~cl_complora.lowrank.TaskDelta` per finished experience: W_t = W_0 + Σ ΔW_i.
        geometry: per finished experience, per matrix, what its update looks like.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deltas: list[TaskDelta] = []
        self.geometry: list[dict[str, dict[str, float]]] = []

    @property
    def task(self) -> int:
        """Number of experiences merged so far, which is the index of the one being trained."""
        return len(self.deltas)

    def before_train_dataset_adaptation(self, strategy, **kwargs) -> None:
        """Attach: this hook, unlike ``before_training_exp``, runs before the optimiser collects parameters."""
        self.attach(strategy.model)

    def after_training_exp(self, strategy, **kwargs) -> None:
        """Merge; what is evaluated afterwards is the merged model."""
        self.merge(strategy.model)

    def prepare(self, model: nn.Module) -> None:
        """Find the weights to adapt, before any training.

        Raises:
            ValueError: if the model has none of the wanted kind.
        """

    @abstractmethod
    def attach(self, model: nn.Module) -> None:
        """Make this experience's weights trainable, and only those."""

    @abstractmethod
    def merge(self, model: nn.Module) -> TaskDelta:
        """Fold what was learned into the weights and record it."""

    @abstractmethod
    def effective_weights(self) -> dict[str, Tensor]:
        """Key → W + ΔW of every adapted matrix, differentiable while attached: what penalties act on."""

    @abstractmethod
    def previous(self) -> AbstractContextManager[None]:
        """Within, the model computes what it did before this experience (the teacher of distillation)."""

    def state(self) -> dict:
        """JSON-able bookkeeping needed by :meth:`restore` beside the deltas."""
        return {}

    @torch.no_grad()
    def restore(self, model: nn.Module, deltas: Sequence[TaskDelta], states: Sequence[dict]) -> None:
        """Bring a model that holds W_0 to where an interrupted run was, by the same arithmetic.

        Args:
            model: holds W_0.
            deltas: of the finished tasks, in order.
            states: :meth:`state` as it was after each of them.
        """
        parameters = dict(clip_of(model).named_parameters())
        for delta in deltas:
            delta.add_to(parameters)
            self.deltas.append(delta)


class FullPlugin(AdapterPlugin):
    """Every weight of the chosen towers moves.

    Args:
        towers: ``vision``, ``text`` or both. The logit scale stays fixed, as everywhere in this project.
    """

    def __init__(self, towers: Sequence[str] = ("vision", "text")) -> None:
        super().__init__()
        self.towers = tuple(towers)
        self._before: dict[str, Tensor] = {}
        self._parameters: dict[str, nn.Parameter] = {}
        self._frozen: dict[str, bool] = {}

    def _moves(self, name: str) -> bool:
        if name in ("logit_scale", "logit_bias"):
            return False
        return ("vision" if name.startswith("visual.") else "text") in self.towers

    def attach(self, model: nn.Module) -> None:
        """Unfreeze the towers, remember where they start."""
        self._frozen = {name: p.requires_grad for name, p in model.named_parameters()}
        model.requires_grad_(False)
        self._parameters = {name: p for name, p in clip_of(model).named_parameters() if self._moves(name)}
        self._before = {name: p.detach().clone() for name, p in self._parameters.items()}
        for p in self._parameters.values():
            p.requires_grad_(True)

    @torch.no_grad()
    def merge(self, model: nn.Module) -> TaskDelta:
        """W ← W_before + ΔW with the stored ΔW, so that a replay of the deltas gives the same bits."""
        delta, geometry = TaskDelta(), {}
        for name, p in self._parameters.items():
            change = p.detach() - self._before[name]
            p.copy_(self._before[name] + change)
            delta.dense[name] = change.cpu()
            if p.ndim == 2:
                geometry[name] = {"delta_norm": float(torch.linalg.matrix_norm(change.double()))}
        for name, p in model.named_parameters():
            p.requires_grad_(self._frozen[name])
        self._before = {}
        self.deltas.append(delta)
        self.geometry.append(geometry)
        return delta

    def effective_weights(self) -> dict[str, Tensor]:
        """The parameters themselves."""
        return dict(self._parameters)

    @contextmanager
    def previous(self) -> Iterator[None]:
        """Swap the weights of before the experience in, and the current ones back."""
        current = {name: p.data for name, p in self._parameters.items()}
        for name, p in self._parameters.items():
            p.data = self._before[name]
        try:
            yield
        finally:
            for name, p in self._parameters.items():
                p.data = current[name]


class FrozenPlugin(AdapterPlugin):
    """Nothing moves: the zero-shot model through the same engine."""

    def attach(self, model: nn.Module) -> None:
        """Freeze everything."""
        model.requires_grad_(False)

    def merge(self, model: nn.Module) -> TaskDelta:
        """An empty delta."""
        self.deltas.append(TaskDelta())
        self.geometry.append({})
        return self.deltas[-1]

    def effective_weights(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def previous(self) -> AbstractContextManager[None]:
        """The model as it is."""
        return nullcontext()
