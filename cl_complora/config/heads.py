"""Schema of a strategy's head: what answers for the learned classes in place of their texts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Count, EachOnce, Section

Positive = Annotated[float, Field(gt=0)]
Grid = Annotated[list[Positive], Field(min_length=1, max_length=50), EachOnce]


class LinearProbe(Section):
    """Logistic regression on unit image features, min ‖W‖²/2 + C · Σ cross-entropy."""

    kind: Literal["linear-probe"]
    c: Grid = [0.316, 1.0, 3.16, 10.0, 31.6, 100.0, 316.0]
    """Values of C to choose from, on validation images or by cross-validation on the shots; one is taken
    as it is."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Parts of the cross-validation where there are no validation images; at most as many as a class has
    shots."""


class NearestMean(Section):
    """The class whose mean unit feature is nearest in angle."""

    kind: Literal["nearest-mean"]


class LinearHead(Section):
    """Unit rows trained by gradient on unit features, logits = τ f·row; stage 2 of 2SFS where they start from
    texts."""

    kind: Literal["linear"]
    start: Literal["text", "random"] = "text"
    """Rows begin as the classes' text features, or at random."""
    lr: Positive = 2e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    steps_per_shot: Count = 120
    """Steps of a task for every shot of a class (the mean number where classes have different ones)."""
    batch_size: Count = 32


Head = Annotated[LinearProbe | NearestMean | LinearHead, Field(discriminator="kind")]


# Kinds that leave no head: all that they fit goes into the weights.
IN_WEIGHTS: tuple[str, ...] = ()
