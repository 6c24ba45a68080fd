"""What the matrices are given while a step is computed forwards, for parts that depend on it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...clip.attention import SplitAttention
from ...clip.classifier import ClipClassifier
from ...clip.slots import Slot


class StepInputs(SupervisedPlugin, supports_distributed=False):
    """Base of plugins that look at every adapted matrix's input in a step's forward pass, and in no other
    pass (those of regularisers, teachers and evaluation, or one that is repeated for gradients)."""

    def __init__(self) -> None:
        super().__init__()
        self._handles: list[RemovableHandle] = []
        self._everything = ExitStack()

    @abstractmethod
    def watched(self) -> Sequence[Slot]:
        """Slots whose inputs are looked at."""

    @abstractmethod
    def given(self, slot: Slot, x: Tensor) -> None:
        """Look at a slot's input (detached); called before its host computes."""

    def before_training_exp(self, strategy, **kwargs) -> None:
        """A text tower's first call also tries whether it can be trimmed: no step shall see that."""
        model = getattr(strategy, "model", None)
        if isinstance(model, ClipClassifier):
            model.text.settle(model.text.tokens(strategy.experience.spaces[0]))

    def before_forward(self, strategy, **kwargs) -> None:
        """Begin to look; the last blocks, too, are shown all tokens."""
        self._stop()
        model = getattr(strategy, "model", None)
        if isinstance(model, ClipClassifier):
            self._everything.enter_context(model.computing_everything())
        by_host: dict[nn.Module, list[Slot]] = {}
        for slot in self.watched():
            by_host.setdefault(slot.host, []).append(slot)
        for host, slots in by_host.items():
            hook = host.register_forward_pre_hook(_telling(slots, self.given), with_kwargs=True)
            self._handles.append(hook)

    def after_forward(self, strategy, **kwargs) -> None:
        """Look no more."""
        self._stop()

    def _stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._everything.close()


def _telling(slots: Sequence[Slot], given: Callable[[Slot, Tensor], None]) -> Callable[..., None]:
    def hook(host: nn.Module, args: tuple, kwargs: dict) -> None:
        inputs = input_of(host, args, kwargs)
        for slot in slots:
            given(slot, inputs(slot.matrix).detach())

    return hook


def input_of(host: nn.Module, args: tuple, kwargs: dict) -> Callable[[str], Tensor]:
    """Matrix name → what it is given in a call of its host: q, k and v may read different things."""
    if isinstance(host, SplitAttention):
        query, key, value, *_ = host.arguments(args, kwargs)
        return {"q": query, "k": key, "v": value}.__getitem__
    x = first_input(args, kwargs)
    return lambda matrix: x


def first_input(args: tuple, kwargs: dict) -> Tensor:
    """What a module is given in a call, by place or by name."""
    return args[0] if args else next(iter(kwargs.values()))
