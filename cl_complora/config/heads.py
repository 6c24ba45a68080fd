"""Schema of a strategy's head: what answers for the learned classes in place of their texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .base import Count, CountOrZero, EachOnce, Fraction, Section, idle_keys, refused

# Which classes a head's images are contrasted with where one label space grows from task to task.
Contrasted = Literal["auto", "task", "seen"]
Positive = Annotated[float, Field(gt=0)]
Grid = Annotated[list[Positive], Field(min_length=1, max_length=50), EachOnce]


# Below, what is left of the map in directions that the task's images do not have is rounding.
Carrying = Annotated[float, Field(ge=1e-9)]


class _FittedToAll(Section):
    drift: Carrying | None = 0.1
    """Class-incremental only, where the image tower moves: λ of the linear map that carries the kept features
    of earlier tasks over to the tower as it is after a task, fitted to the task's images before and after it
    (learnable drift compensation, ECCV 2024); null leaves them as they were."""


class LinearProbe(_FittedToAll):
    """Logistic regression on unit image features, min ‖W‖²/2 + C · Σ w_y · cross-entropy."""

    kind: Literal["linear-probe"]
    c: Grid = [0.316, 1.0, 3.16, 10.0, 31.6, 100.0, 316.0]
    """Values of C to choose from, on validation images or by cross-validation on the shots; one is taken
    as it is."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Parts of the cross-validation where there are no validation images; at most as many as the smallest
    class has shots."""
    balanced: bool = True
    """Whether classes count alike however many shots they have, w_y = N / (K n_y), as scikit-learn's
    ``class_weight="balanced"``; with even shots that changes nothing."""
    with_untouched: bool = False
    """Whether images are seen by the untouched image tower as well, its features beside those of the model as
    it is, so that what an update takes from the features of few shots is not lost, at the cost of a second
    tower in memory and of a second pass for every image that a head answers."""


class NearestMean(_FittedToAll):
    """The class whose mean unit feature is nearest in angle."""

    kind: Literal["nearest-mean"]


class LinearHead(Section):
    """Unit rows trained by gradient on unit features, logits = τ f·row; stage 2 of 2SFS where they start from
    texts."""

    kind: Literal["linear"]
    start: Literal["text", "random"] = "text"
    """Rows begin as the classes' text features, or at random."""
    lr: Positive = 2e-4
    """Learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Of AdamW."""
    steps_per_shot: Count = 120
    """Steps of a task for every shot of a class (the mean number where classes have different ones)."""
    batch_size: Count = 32
    """Features a step."""
    classes: Contrasted = "auto"
    """Class-incremental only: rows are told apart from those of the task, or of all classes seen so far. By
    default as ``training.classes`` says, and ``seen`` where that says nothing, whatever the towers do."""


class LpPlusPlus(_FittedToAll):
    """LP++: a linear probe beside the texts, f Wᵀ + b + α_k f·t_k, with a trained α for every class."""

    kind: Literal["lp++"]
    epochs: Count = 300
    """Steps on all shots; the one that stays is chosen on validation images, where there are some."""
    alpha_every: Count = 10
    """Epochs between two steps of α."""


class Ridge(_FittedToAll):
    """RAIL: ridge regression on random or kernel features, mixed with what the texts say."""

    kind: Literal["ridge"]
    form: Literal["primal", "dual"] = "primal"
    """relu of random projections of the features, or a Gaussian kernel on the shots."""
    hidden: Annotated[int, Field(ge=1, le=20_000)] = 5000
    """Random projections (primal)."""
    gamma: Positive = 0.1
    """Of the kernel exp(−γ‖f − f′‖²) (dual)."""
    regularisation: Positive | None = None
    """λ; 0.1 for primal and 0.001 for dual by default."""
    share: Fraction = 0.8
    """Of the regression in the answer, the rest being the texts'."""

    @model_validator(mode="after")
    def _settings_of_the_form(self) -> Ridge:
        idle = {"primal": "gamma", "dual": "hidden"}[self.form]
        if idle in self.model_fields_set:
            other = "dual" if self.form == "primal" else "primal"
            message = f"has no effect with form: {self.form}, only with form: {other}"
            raise refused(message, idle, because=[("form",)])
        return self

    @property
    def strength(self) -> float:
        """λ."""
        return self.regularisation or {"primal": 0.1, "dual": 0.001}[self.form]


class TipAdapter(Section):
    """Tip-Adapter(-F): the texts' logits plus α exp(−β(1 − f·keyᵀ)) · one-hot labels of the shots."""

    kind: Literal["tip-adapter"]
    train: bool = False
    """Train the keys (Tip-Adapter-F)."""
    views: Annotated[int, Field(ge=1, le=100)] = 10
    """Augmented views of a shot whose mean is its key; views alike where images are not augmented."""
    beta: Positive | None = None
    """Sharpness β; chosen with α on a grid by default, with ``train`` after the keys are trained."""
    alpha: Positive | None = None
    """Weight α of the shots."""
    lr: Positive = 1e-3
    """Learning rate of the keys."""
    epochs: Count = 20
    """Most epochs; which of them stays is chosen on validation images, where there are some."""
    batch_size: Count = 256
    """Features a step."""
    classes: Contrasted = "auto"
    """Class-incremental only: keys are trained among the classes of the task, or among all seen so far. By
    default as ``training.classes`` says, and ``seen`` where that says nothing."""

    @model_validator(mode="after")
    def _settings_of_training(self) -> TipAdapter:
        idle = [key for key in ("lr", "epochs", "batch_size", "classes") if key in self.model_fields_set]
        if idle and not self.train:
            raise refused("has no effect without train: true", idle[0], because=[("train",)])
        return self


class RAda(Section):
    """RAda: a mask on the products of image and text features, from attention over all of them."""

    kind: Literal["rada"]
    lr: Positive = 1e-3
    """Learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Coupled L2 of Adam."""
    epochs: Count = 5
    """Passes over the shots."""
    batch_size: Count = 32
    """Features a step."""
    penalty: Annotated[float, Field(ge=0)] = 0.0
    """Weight of mean max |mask − 1|."""
    temperature: Positive = 1.0
    """Of the attention."""
    heads: Annotated[int, Field(ge=1, le=1024)] = 8
    """Of the attention; where they do not divide the width of the features, as many as do."""
    classes: Contrasted = "auto"
    """Class-incremental only: images are told apart from the classes of the task, or from all seen so far. By
    default as ``training.classes`` says, and ``seen`` where that says nothing, whatever the towers do."""


# What the steps of LFA alone read, and what may be said of them where there are none.
_OF_REFINEMENT = ("lr", "weight_decay", "neighbours", "scale", "noise", "dropout")
_UNREFINED = {"map": "refined", "crops": 0, "constraint": "none"}


class Lfa(Section):
    """LFA: a linear map of image features onto their classes' texts, folded into the image projection."""

    kind: Literal["lfa"]
    beta: Fraction | None = None
    """Share of the identity in the map's start; chosen on three splits of the shots by default."""
    completion: Literal["identity", "svd"] = "identity"
    """Directions that the shots do not determine: turned as little as possible, or as the decomposition
    says."""
    map: Literal["refined", "ema"] = "refined"
    """What is kept: the trained map, or its running mean, which stays nearer to the identity."""
    steps: CountOrZero = 200
    """Steps of the refinement; 0 keeps the map as it is solved for."""
    lr: Positive = 5e-4
    """Learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Of AdamW."""
    neighbours: Count = 3
    """Nearest classes that the loss keeps away."""
    scale: Positive = 4.0
    """The margin is (1 − cosine of two classes' texts) / scale."""
    noise: Annotated[float, Field(ge=0)] = 0.035
    """Gaussian, added to the features at half of the steps."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Of the features, at half of the steps."""
    crops: CountOrZero = 0
    """Augmented views of every image, of which each step takes one of all images; 0 takes three quarters of
    the images as they are."""
    constraint: Literal["none", "orthogonal", "spectral"] = "none"
    """After every step: none, W ← 1.01 W − .01 W Wᵀ W, or singular values of at most 1."""

    @model_validator(mode="after")
    def _settings_of_steps(self) -> Lfa:
        if self.steps > 0:
            return self
        idle = [key for key in _OF_REFINEMENT if key in self.model_fields_set]
        idle += [key for key, value in _UNREFINED.items() if getattr(self, key) != value]
        if idle:
            raise refused(f"{idle_keys(idle)} with steps: 0", idle[0], because=[("steps",)])
        return self


Head = Annotated[
    LinearProbe | NearestMean | LinearHead | LpPlusPlus | Ridge | TipAdapter | RAda | Lfa,
    Field(discriminator="kind"),
]


def contrasts(head: Mapping[str, Any]) -> bool:
    """Whether a head, as it stands in a file, is trained in a way that asks which classes are contrasted."""
    return head.get("kind") in ("linear", "rada") or (
        head.get("kind") == "tip-adapter" and head.get("train") is True
    )


# Kinds that leave no head: all that they fit goes into the weights.
IN_WEIGHTS: tuple[str, ...] = ("lfa",)
