"""Schema of what is added to the loss of a step (``regularisers``)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from .base import Count, EachOnce, Fraction, Section, Template, Text, refused


class Ewc(Section):
    """Elastic weight consolidation on the effective weights."""

    kind: Literal["ewc"]
    strength: Annotated[float, Field(ge=0)]
    """λ in λ/2 · Σ F (W − W*)²."""
    online: bool = True
    """One running Fisher and anchor instead of one pair per task."""
    decay: Fraction = 1.0
    """Weight of the earlier Fisher when online."""
    samples: Count = 128
    """Training images for the Fisher, once a task; tasks that are trained together share them, with one each
    at least."""

    @model_validator(mode="after")
    def _decay_needs_online(self) -> Ewc:
        if "decay" in self.model_fields_set and not self.online:
            raise refused("has no effect with online: false", "decay", because=[("online",)])
        return self


class Lwf(Section):
    """Learning without forgetting, as its paper has it: distil the previous merged state's logits over
    earlier label spaces, but for those whose classes all have images in the present task."""

    kind: Literal["lwf"]
    strength: Annotated[float, Field(ge=0)]
    """Weight in the loss."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """That logits are divided by."""
    texts_of: Literal["teacher", "student"] = "student"
    """Whose texts of the earlier classes the student's images are compared with: the teacher's hold the image
    tower alone and are read once a task, the student's own hold both towers and are read at every step."""


class Similarities(Section):
    """Learning without forgetting as ZSCL's baseline has it: distil the previous state's similarities between
    the batch's images and the task's own class texts, in both directions and from the first task on."""

    kind: Literal["similarities"]
    strength: Annotated[float, Field(ge=0)] = 1.0
    """Weight in the loss."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """That logits are divided by."""
    texts_of: Literal["teacher", "student"] = "teacher"
    """Whose texts the student's images are compared with."""


class Sentences(Section):
    """LwF-VR: distil the previous state's similarities between the batch's images and sentences of random
    words, in both directions and from the first task on."""

    kind: Literal["sentences"]
    strength: Annotated[float, Field(ge=0)] = 1.0
    """Weight in the loss."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """That logits are divided by."""
    texts_of: Literal["teacher", "student"] = "teacher"
    """Whose texts the student's images are compared with."""
    sentences: Count = 1000
    """Drawn for every task."""
    words: Count = 10
    """Words of a sentence."""
    texts: Count = 1000
    """Sentences a step; all of them where there are fewer."""


class TextToImage(Section):
    """CoDyRA's second loss: every class text finds its images among those of the batch."""

    kind: Literal["text-to-image"]
    strength: Annotated[float, Field(ge=0)] = 1.0
    """Weight in the loss."""


class L2Init(Section):
    """Pull the effective weights towards where they started."""

    kind: Literal["l2-init"]
    strength: Annotated[float, Field(ge=0)]
    """Weight in the loss."""
    to: Literal["pretrained", "previous"] = "pretrained"
    """The pretrained weights, or those before the task."""


class Reference(Section):
    """ZSCL: distil the pretrained model's similarities between reference images and reference texts.

    The scenario names the reference set, which belongs to no task.
    """

    needs_reference: ClassVar = True
    kind: Literal["reference"]
    strength: Annotated[float, Field(ge=0)] = 1.0
    """Weight in the loss."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """That logits are divided by."""
    batch_size: Count = 32
    """Reference images a step."""
    texts: Count = 64
    """Reference texts a step."""
    texts_of: Literal["teacher", "student"] = "teacher"
    """Whose texts the student's images are compared with: the teacher's, as in ZSCL's code (no gradient
    reaches the text tower), or the student's own."""


class Orthogonal(Section):
    """O-LoRA: strength · Σ |A A_iᵀ| keeps the input directions of low-rank updates apart from earlier
    ones."""

    kind: Literal["orthogonal"]
    strength: Annotated[float, Field(ge=0)] = 0.5
    """Weight in the loss."""
    norm: Annotated[float, Field(ge=0)] = 0.0
    """λ₂ of norm · Σ (‖A‖ + ‖B‖), norms not squared, from the first task on."""


class Orthonormal(Section):
    """AdaLoRA's: strength · mean over all A and B of ‖A Aᵀ − I‖ and ‖Bᵀ B − I‖, norms not squared."""

    kind: Literal["orthonormal"]
    strength: Annotated[float, Field(ge=0)] = 0.1
    """Weight in the loss."""


class Consistency(Section):
    """BA-LoRA's first term: strength · mean of (z/‖z‖ − z⁰/‖z⁰‖)², rows z the cosines of an image with the
    class texts and z⁰ those of the state before the task."""

    kind: Literal["consistency"]
    strength: Annotated[float, Field(ge=0)] = 1e-4
    """Weight in the loss."""


class Diversity(Section):
    """BA-LoRA's second term: strength · Σ of the squared covariances between the cosines of different classes
    over the batch, divided by the number of classes."""

    kind: Literal["diversity"]
    strength: Annotated[float, Field(ge=0)] = 3e-4
    """Weight in the loss."""


class Spectrum(Section):
    """BA-LoRA's third term: −strength · share of the largest singular values in the sum of all, of the
    batch's cosines."""

    kind: Literal["spectrum"]
    strength: Annotated[float, Field(ge=0)] = 1e-4
    """Weight in the loss."""
    largest: Count = 3
    """How many; all where a batch has fewer images or classes."""


class Apart(Section):
    """DAC's: strength · mean over matrices of Σ |B_topᵀ B_past|, from the second task on; B_top are the
    experts that have been picked most often by now (``adapter.between.kind: experts``)."""

    kind: Literal["apart"]
    strength: Annotated[float, Field(ge=0)] = 0.1
    """Weight in the loss."""
    past: Literal["all", "merged"] = "all"
    """Earlier tasks' experts: all of them, as published (by a fault), or those that were merged."""


# Words for what is behind things, in photographs and in the embedded world's scenes.
BACKGROUND = (
    "sky cloud grass tree forest mountain hill sea water river beach sand snow road pavement floor wall"
    " ceiling building fence field desert rock soil window curtain table paper fabric fog"
).split()
# Rows or columns, as in DenseVLM: a region of fewer pixels than a patch says nothing.
Cells = Annotated[int, Field(ge=1, le=6)]


class _OnRegions(Section):
    grid: Annotated[list[Cells], Field(min_length=2, max_length=2)] = [2, 3]
    """Fewest and most rows, and columns, of the grid that images are parted by; drawn for every step."""

    @field_validator("grid")
    @classmethod
    def _ordered(cls, value: list[int]) -> list[int]:
        if value[0] > value[1]:
            raise refused(f"must be [fewest, most] with fewest ≤ most, got {value}")
        return value


class Regions(_OnRegions):
    """DenseVLM's loss with the model before the task as the teacher: which things or background words the
    cells of a grid show."""

    kind: Literal["regions"]
    strength: Annotated[float, Field(ge=0)] = 0.1
    """Weight in the loss."""
    confidence: Fraction = 0.3
    """Cells count where the teacher is surer of a word."""
    scale: Annotated[float, Field(gt=0, le=1e4)] = 100.0
    """Of the cosines of both models."""
    decouple: bool = True
    """Cells that show things are compared over the things alone; false: all cells over all words."""
    background: Annotated[list[Text], Field(min_length=1), EachOnce] = BACKGROUND
    """Words for what is no thing; those that are classes of a task count as things."""
    prompt: Template = "a photo of {}"
    """For the background words; things have the first prompt of their task."""


class Crops(_OnRegions):
    """CLIPSelf's loss with the model before the task as the teacher: dense features of the cells of a grid
    near the features of their crops."""

    kind: Literal["crops"]
    strength: Annotated[float, Field(ge=0)] = 0.1
    """Weight in the loss."""


Regulariser = Annotated[
    Similarities
    | Sentences
    | TextToImage
    | Ewc
    | Lwf
    | L2Init
    | Reference
    | Orthogonal
    | Orthonormal
    | Consistency
    | Diversity
    | Spectrum
    | Apart
    | Regions
    | Crops,
    Field(discriminator="kind"),
]
