"""Schema of ``training.loss``: what a batch's answers are held against its labels by.

Beside cross-entropy and CLIP's own loss these are the losses of long-tailed learning, as their authors' code
has them (docs/losses.md).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from .base import Section, refused
from .faults import suggest
from .yaml_lines import shown


class _Loss(Section):
    kind: str

    @model_serializer(mode="wrap")
    def _short(self, inner: SerializerFunctionWrapHandler) -> Any:
        # The name alone, as a file may say it, where nothing else is to be told.
        told = inner(self)
        return told["kind"] if set(told) == {"kind"} else told

    @property
    def counts(self) -> bool:
        """Whether the loss asks how many training images a class has."""
        return False

    @property
    def needs_classes(self) -> str | None:
        """Why it cannot stand beside tasks of captions, whose own loss is CLIP's; None where it can."""
        return "weighs the classes of a task"

    @property
    def of_memory(self) -> _Loss:
        """The loss of images that are replayed beside the batch."""
        return self


class _Pairing(_Loss):
    @property
    def needs_classes(self) -> None:
        """CLIP's own loss does with captions what these do with classes."""
        return None


class _Counting(_Loss):
    @property
    def counts(self) -> bool:
        """As in the base class."""
        return True


class CrossEntropy(_Pairing):
    """Images find their classes among those of a task."""

    kind: Literal["classes"]


class Batch(_Pairing):
    """As when CLIP was trained: images and texts of a batch find each other in both directions, where images
    of one class share a text."""

    kind: Literal["batch"]

    @property
    def of_memory(self) -> _Loss:
        """Cross-entropy: drawn images of many tasks have no texts in common."""
        return CrossEntropy(kind="classes")


class BalancedSoftmax(_Counting):
    """Cross-entropy of logits to which the logarithms of the classes' shares of the training images are
    added."""

    kind: Literal["balanced-softmax"]


class Focal(_Loss):
    """−(1 − p)^γ log p of an image's own class: less weight for what is sure already."""

    kind: Literal["focal"]
    gamma: Annotated[float, Field(ge=0, le=100)] = 2.0
    """γ; cross-entropy with 0."""


class Ldam(_Counting):
    """Cross-entropy with a margin on the cosine of an image's own class, wider for rarer classes."""

    kind: Literal["ldam"]
    margin: Annotated[float, Field(gt=0, le=2)] = 0.05
    """Of the rarest class, in cosine; others have margin · (n_min / n)^¼."""


class ClassWeighted(_Counting):
    """Cross-entropy with rarer classes weighted more, divided by the weights of the batch's images."""

    kind: Literal["class-weighted"]
    power: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Weights are n^−power."""
    beta: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Weights are 1 / (1 − β^n) instead, by effective numbers of images (Cui et al., CVPR 2019)."""

    @model_validator(mode="after")
    def _one_weighting(self) -> ClassWeighted:
        if self.beta is not None and "power" in self.model_fields_set:
            raise refused("has no effect with beta; give one of the two", "power", because=[("beta",)])
        return self


class Lade(_Counting):
    """Balanced softmax and a regulariser that disentangles logits from the shares of the classes."""

    kind: Literal["lade"]
    weight: Annotated[float, Field(ge=0, le=1e6)] = 0.1
    """Of the regulariser."""
    remine: Annotated[float, Field(ge=0, le=1e6)] = 0.1
    """Of the square that keeps its estimate of a density from growing."""


_AnyLoss = CrossEntropy | Batch | BalancedSoftmax | Focal | Ldam | ClassWeighted | Lade
NAMES: tuple[str, ...] = tuple(
    get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(_AnyLoss)
)
# What the field calls the default.
_ALSO_CALLED = {"cross-entropy": "classes"}


def _section(value: Any) -> Any:
    """A name alone is a section of that kind."""
    if isinstance(value, _Loss):
        return value
    if isinstance(value, dict):
        kind = value.get("kind")
        return (
            {**value, "kind": _ALSO_CALLED[kind]} if isinstance(kind, str) and kind in _ALSO_CALLED else value
        )
    name = _ALSO_CALLED.get(value, value) if isinstance(value, str) else value
    if not (isinstance(name, str) and name in NAMES):
        known = ", ".join(repr(one) for one in NAMES)
        meant = suggest(value, [*NAMES, *_ALSO_CALLED])
        raise refused(f"must be one of {known}, or a section with kind, got {shown(value)}{meant}")
    return {"kind": name}


Loss = Annotated[Annotated[_AnyLoss, Field(discriminator="kind")], BeforeValidator(_section)]
