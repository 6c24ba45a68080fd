"""What moves during a task: the part every adapter plugin has in common, full fine-tuning, and nothing at
all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn

from ..clip.classifier import ClipClassifier
from ..clip.slots import TOWERS, Slot
from ..delta import TaskDelta
from .full_parameters import KINDS, WholeParameters
from .task_state import CarryingPlugin


def clip_of(model: nn.Module) -> nn.Module:
    """The module whose parameter names deltas use: the open_clip model itself where there is a classifier
    around it."""
    return model.clip if isinstance(model, ClipClassifier) else model


class Merging:
    """What is done to a task's update before it enters the weights: nothing, unless a subclass says so."""

    def look_ahead(self, experience) -> None:
        """See the experience before it is trained."""

    def __call__(self, delta: TaskDelta, earlier: Sequence[TaskDelta]) -> TaskDelta:
        """What enters the weights; keys that it lacks stay as they were before the experience.

        Args:
            delta: ΔW of this experience, as it was learned.
            earlier: those before it, as they were merged.
        """
        return delta


class AdapterPlugin(SupervisedPlugin, supports_distributed=False):
    """Makes some weights trainable for an experience and afterwards folds what was learned into the model.

    Args:
        merging: what enters the weights in place of ΔW; ΔW itself by default.

    Attributes:
        deltas: one :class:`~cl_complora.delta.TaskDelta` per finished experience: W_t = W_0 + Σ ΔW_i.
        geometry: per finished experience, per matrix, what its update looks like.
    """

    def __init__(self, merging: Merging | None = None) -> None:
        super().__init__()
        self.merging = merging or Merging()
        self.deltas: list[TaskDelta] = []
        self.geometry: list[dict[str, dict[str, float]]] = []

    @property
    def task(self) -> int:
        """Number of experiences merged so far, which is the index of the one being trained."""
        return len(self.deltas)

    def before_train_dataset_adaptation(self, strategy, **kwargs) -> None:
        """Attach: this hook, unlike ``before_training_exp``, runs before the optimiser collects
        parameters."""
        self.merging.look_ahead(strategy.experience)
        self.attach(strategy.model)

    def after_training_exp(self, strategy, **kwargs) -> None:
        """Merge; what is evaluated afterwards is the merged model."""
        self.merge(strategy.model)

    def prepare(self, model: nn.Module) -> None:
        """Find the weights to adapt, before any training.

        Raises:
            ValueError: if the model has none of the wanted kind.
        """

    def moved_towers(self, model: nn.Module) -> set[str]:
        """Towers that have something which is trained."""
        return set()

    def idle_towers(self, model: nn.Module) -> list[str]:
        """Towers that are to be adapted and have nothing that could be (the image tower of a ResNet, say)."""
        return []

    @abstractmethod
    def attach(self, model: nn.Module) -> None:
        """Make this experience's weights trainable, and only those."""

    def skip(self) -> None:
        """Record an experience in which nothing was trained."""
        self.deltas.append(TaskDelta())
        self.geometry.append({})

    @torch.no_grad()
    def add(self, model: nn.Module, delta: TaskDelta) -> None:
        """Change whole parameters beyond what the experience just merged has changed, and record both as
        one."""
        delta.add_to(dict(clip_of(model).named_parameters()))
        self.deltas[-1] = self.deltas[-1].plus(delta)

    @abstractmethod
    def merge(self, model: nn.Module) -> TaskDelta:
        """Fold what was learned into the weights and record it."""

    @abstractmethod
    def effective_weights(self) -> dict[str, Tensor]:
        """Key → W + ΔW of every adapted matrix, differentiable while attached: what penalties act on."""

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Key → (s·B′, A′) of every low-rank update while attached; none where weights are trained whole."""
        return {}

    def hosts(self) -> list[tuple[nn.Module, Tensor]]:
        """(low-rank block, the matrix that it updates) while attached; none where weights are trained
        whole."""
        return []

    def composed(self, model: ClipClassifier) -> AbstractContextManager[None]:
        """Within, a forward pass of a training step; low-rank updates may be composed at its beginning."""
        return nullcontext()

    def trained_factors(self) -> list[Tensor]:
        """A and B of every low-rank update while attached, as they are trained."""
        return []

    def notes(self) -> list[str]:
        """What the user should know about the experience that was trained last."""
        return []

    def carriers(self) -> list[CarryingPlugin]:
        """Parts of the adapter that carry something over beside the deltas."""
        return []

    def whole_kinds(self, model: nn.Module) -> dict[int, str]:
        """``id`` of every parameter that is trained as it is → its kind, which may have a learning rate of
        its own."""
        return {}

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


class FullPlugin(AdapterPlugin, supports_distributed=False):
    """Weights move as they are: all of the chosen towers, or some kinds of them.

    Args:
        towers: ``vision``, ``text`` or both.
        kinds: which parameters (see :data:`~cl_complora.engine.full_parameters.KINDS`).
        merging: as in the base class.
    """

    def __init__(
        self,
        towers: Sequence[str] = ("vision", "text"),
        kinds: Sequence[str] = KINDS,
        merging: Merging | None = None,
    ) -> None:
        super().__init__(merging)
        self.whole = WholeParameters(kinds, towers)
        self._frozen: dict[str, bool] = {}

    def prepare(self, model: nn.Module) -> None:
        """As in the base class."""
        if not self.whole.find(clip_of(model)):
            raise ValueError(f"no parameter of this model is one of {sorted(self.whole.kinds)}")

    def moved_towers(self, model: nn.Module) -> set[str]:
        """As in the base class."""
        return self.whole.towers_of(clip_of(model))

    def idle_towers(self, model: nn.Module) -> list[str]:
        """As in the base class."""
        return [tower for tower in TOWERS if tower in self.whole.towers - self.moved_towers(model)]

    def attach(self, model: nn.Module) -> None:
        """Unfreeze, remember where they start."""
        self._frozen = {name: p.requires_grad for name, p in model.named_parameters()}
        model.requires_grad_(False)
        self.whole.attach(clip_of(model))

    @torch.no_grad()
    def merge(self, model: nn.Module) -> TaskDelta:
        """W ← W_before + ΔW."""
        delta = self.merging(self.whole.learned(), self.deltas)
        self.whole.settle(delta)
        for name, p in model.named_parameters():
            p.requires_grad_(self._frozen[name])
        self.deltas.append(delta)
        self.geometry.append(whole_norms(delta))
        return delta

    def whole_kinds(self, model: nn.Module) -> dict[int, str]:
        """As in the base class."""
        return self.whole.kinds_of_trained(clip_of(model))

    def effective_weights(self) -> dict[str, Tensor]:
        """The parameters themselves."""
        return dict(self.whole.weights())

    def previous(self) -> AbstractContextManager[None]:
        """Swap the weights of before the experience in, and the current ones back."""
        return self.whole.previous()


def whole_norms(delta: TaskDelta) -> dict[str, dict[str, float]]:
    """Geometry of what was trained whole: matrix → ‖ΔW‖_F."""
    norms = {}
    for name, rows, change in delta.updates():
        if change.ndim == 2 and not isinstance(rows, slice):
            norms[name] = {"delta_norm": float(torch.linalg.matrix_norm(change.double()))}
    return norms


def slot_norms(
    delta: TaskDelta, slots: Sequence[Slot], adapted: Mapping[str, Tensor]
) -> list[dict[str, float]]:
    """Geometry of slots whose parameters are changed as wholes: ‖ΔW‖_F of the rows of each, as merged.

    Args:
        delta: of the parameters.
        slots: that are parts of them.
        adapted: the parameters, for their shapes.
    """
    moved = {name: torch.zeros(p.shape) for name, p in adapted.items()}
    delta.add_to(moved)
    return [{"delta_norm": float(moved[slot.parameter][slot.rows].double().norm())} for slot in slots]


class FrozenPlugin(AdapterPlugin, supports_distributed=False):
    """Nothing moves: the zero-shot model through the same engine."""

    def attach(self, model: nn.Module) -> None:
        """Freeze everything."""
        model.requires_grad_(False)

    def merge(self, model: nn.Module) -> TaskDelta:
        """An empty delta."""
        self.skip()
        return self.deltas[-1]

    def effective_weights(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def previous(self) -> AbstractContextManager[None]:
        """The model as it is."""
        return nullcontext()
