"""Schema of low-rank factors: where they start (``adapter.start``) and what stands between them
(``adapter.between``)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from .base import Count, Fraction, Section, refused

Energy = Annotated[float, Field(gt=0, le=1)]

# Starts whose A is given, so that only what stands left of it is trained.
FIXED_A = ("core", "inputs", "gradient")


class KaimingStart(Section):
    """LoRA's own start: A random, B zero, both trained."""

    kind: Literal["kaiming"]


class NormalStart(Section):
    """A from N(0, a²) and B from N(0, b²), both trained."""

    kind: Literal["normal"]
    a: Annotated[float, Field(gt=0)] | None = None
    """1/rank by default."""
    b: Annotated[float, Field(ge=0)] = 0.0
    """Other than zero only with what starts at zero between the factors (``between.kind: budget``)."""


class CoreStart(Section):
    """NuSA-CL's: A is fixed to the input basis and B holds coordinates in the output basis, ΔW = U M Vᵀ."""

    kind: Literal["core"]


class ComponentsStart(Section):
    """A and B start as singular components of the weight, whose product is taken off again."""

    kind: Literal["components"]
    which: Literal["smallest", "largest"] = "smallest"
    """Those of smallest value (MiLoRA) or of largest (PiSSA)."""


class InputsStart(Section):
    """InfLoRA's: A is fixed to the leading directions of the task's inputs outside those of earlier tasks'
    inputs."""

    kind: Literal["inputs"]
    rule: Literal["paper", "code"] = "paper"
    """With C the covariance of the inputs and λ its eigenvalues. ``paper``: energy is Σλ, A from (I − P) C
    (I − P). ``code``, as the authors' program has it: energy is Σλ², A from (I − P) C, and the first task
    keeps one direction fewer than would pass the threshold (at least one)."""
    energy: Energy = 0.95
    """Share of an earlier task's input energy that is kept free of later updates."""
    energy_end: Energy | None = None
    """The share grows with the tasks from ``energy`` towards this: energy + (energy_end − energy)·t/T, t from
    0."""
    images: Count = 256
    """Training images at most whose features are looked at."""

    @model_validator(mode="after")
    def _grows(self) -> InputsStart:
        if self.energy_end is not None and self.energy_end < self.energy:
            message = (
                f"must be at least energy ({self.energy:g}), got {self.energy_end:g}: the share only grows"
            )
            raise refused(message, "energy_end", because=[("energy",)])
        return self


class TowerEnergy(Section):
    """A share of energy for each tower."""

    vision: Energy = 0.85
    """Of the image tower."""
    text: Energy = 0.2
    """Of the text tower."""


class GradientStart(Section):
    """KeepLoRA's: A is fixed to the leading directions of the task's gradient outside the principal input
    directions of the pretrained weights and those of earlier tasks' inputs."""

    kind: Literal["gradient"]
    side: Literal["published", "input"] = "published"
    """Whose principal directions are kept out of A. ``input``: those that the weights read (right singular
    vectors), which is what the method describes; ``published``: those that they write (left ones), as the
    authors' CLIP code has it, for square matrices only."""
    energy: TowerEnergy = TowerEnergy()
    """Share of ‖W‖² below which directions are principal (at least one is)."""
    values: Literal["gradient", "zero"] = "gradient"
    """B at the start: the gradient's components, taken off again so that nothing is updated yet (KeepLoRA),
    or zero (KeepLoRA++)."""
    kept: Energy = 0.99
    """Share of a task's input energy that later tasks leave alone."""
    features: Literal["summed", "all"] = "summed"
    """Inputs whose directions are kept: batches added up token by token, as published (signs cancel, and an
    incomplete last batch is left out), or all of them."""
    batch_size: Count = 64
    """Images that are looked at together."""


class VarianceStart(Section):
    """EVA's: A starts as the principal components of the task's inputs (in a subspace, of what it leaves of
    them), and ranks go where they explain most."""

    kind: Literal["variance"]
    most: Annotated[float, Field(ge=1)] = 2.0
    """A matrix gets at most so many times the rank; 1 gives all the same."""
    images: Count = 256
    """Training images at most whose features are looked at."""


class GradientComponentsStart(Section):
    """LoRA-GA's: A and B start as singular vectors of the task's gradient, and their product is taken off
    again."""

    kind: Literal["gradient-components"]
    leading: Literal["input", "output"] = "input"
    """Whose vectors are the first r; the other factor gets those of the next r. ``input`` as in the authors'
    program (there ``ArB2r``), ``output`` as in the paper (``A2rBr``)."""
    gamma: Annotated[float, Field(gt=0)] = 16.0
    """γ; both factors have vectors of length out^¼ / √γ."""
    batch_size: Count = 64
    """Images that are looked at together."""


Start = Annotated[
    KaimingStart
    | NormalStart
    | CoreStart
    | ComponentsStart
    | InputsStart
    | GradientStart
    | VarianceStart
    | GradientComponentsStart,
    Field(discriminator="kind"),
]


class Gates(Section):
    """CoDyRA's: B (g ⊙ A x) with trained g from N(0, 1), of which what is small is set to zero on the way."""

    kind: Literal["gates"]
    starts: ClassVar = ("kaiming",)
    threshold: Annotated[float, Field(ge=0)] = 0.005
    """Largest threshold κ; all below 2κ ends at zero."""
    levels: Annotated[int, Field(ge=2, le=10_000)] = 50
    """Thresholds from 0 to the largest, evenly apart."""
    dense: Fraction = 0.5
    """Share of a task's steps before the first of them."""


class Directions(Section):
    """SD-LoRA's: directions of earlier tasks stay beside the new one, and one trained α scales each.

    ΔW = Σ_{i<t} α_i·B_i A_i / (‖B_i‖‖A_i‖) + α_t·B_t A_t, less what the merged weight holds of the former.
    """

    kind: Literal["directions"]
    starts: ClassVar = ("kaiming",)
    initial: Annotated[float, Field(gt=0)] = 0.8
    """α before training."""
    per: Literal["model", "matrix"] = "model"
    """One α a task for all matrices, as published, or one for each."""
    restart: bool = True
    """Every α starts at ``initial`` again in every task, as published, where the model jumps before the first
    step; or from what it was."""

    @model_validator(mode="after")
    def _continued_by_matrix(self) -> Directions:
        if not self.restart and self.per == "model":
            message = (
                "false works with per: matrix, since the norms of a task's last update differ between them"
            )
            raise refused(message, "restart", because=[("per",)])
        return self


class Heads(Section):
    """Image-LoRA's: only the rows of some heads are updated, those whose gates have the largest gradients,
    and one trained number γ scales what a matrix gets.

    ΔW = γ·s/√H · B A on the rows of the H chosen heads of a matrix, zero on the others.
    """

    kind: Literal["heads"]
    starts: ClassVar = ("kaiming", "normal")
    share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Of all heads of the adapted matrices."""
    power: Annotated[float, Field(ge=0)] = 0.5
    """τ: a matrix gets heads in proportion to (Σ of its scores)^τ; 0 gives all the same."""
    gain: Annotated[float, Field(gt=0)] = 0.01
    """γ before training."""
    batch_size: Count = 64
    """Images whose gradients are taken together before the task."""


class Boosters(Section):
    """XGBLoRA's: after every so many steps the factors are merged and others begin, each time of some blocks
    alone. ΔW is the sum of all."""

    kind: Literal["boosters"]
    starts: ClassVar = ("kaiming",)
    steps: Count = 10
    """κ, of one booster."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the towers' blocks that a booster adapts, drawn anew for each (one at least)."""


class Budget(Section):
    """AdaLoRA's: B diag(e) A with a trained e from zero, of which over the steps of a task ever more of small
    importance are set to zero."""

    kind: Literal["budget"]
    starts: ClassVar = ("normal",)
    kept: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of all matrices' ranks together that is left at the end."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps before the first is set to zero."""
    final: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the steps at the end over which the same stay zero."""
    every: Count = 5
    """Steps from one choice to the next in between."""
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [
        0.85,
        0.85,
    ]
    """Memory of an entry's importance, and of how much that varies."""

    @model_validator(mode="after")
    def _time_to_choose(self) -> Budget:
        if self.warmup + self.final >= 1:
            message = f"must be less than 1 − warmup ({1 - self.warmup:g}), got {self.final:g}"
            raise refused(message, "final", because=[("warmup",)])
        return self


class Experts(Section):
    """DAC's: the rank is a pool of experts of rank 1, of which every batch picks some; those that were picked
    most often make the task's update.

    ΔW = s·Σ_{i picked} b_i a_iᵀ.
    """

    kind: Literal["experts"]
    starts: ClassVar = ("kaiming",)
    active: Count = 8
    """Experts of a batch, and marks that each of its samples gives."""
    merged: Count = 4
    """Experts that make the update, of each matrix."""


Between = Annotated[Gates | Directions | Heads | Boosters | Budget | Experts, Field(discriminator="kind")]


class Pruning(Section):
    """PRILoRA's: after every so many steps the least important entries of each row of A are set to zero.

    Importance is |A_ij| times a running mean of the length of input j over a batch's tokens.
    """

    every: Count = 10
    """Steps from one pruning to the next."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Of a row's entries, rounded down."""
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Weight of what was in the running mean, which begins with the first batch."""
    grow_back: bool = True
    """Whether what was set to zero is trained on until the next pruning."""


class FullGradient(Section):
    """LoRA-Pro's steps (see :class:`~cl_complora.engine.updates.full_gradient.FullGradientPlugin`)."""

    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [
        0.9,
        0.999,
    ]
    """Decay of Adam's two moments."""
