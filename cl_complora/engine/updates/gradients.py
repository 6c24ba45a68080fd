"""Gradients of an experience with respect to the weights that will be adapted, taken before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...clip.slots import Slot
from ...clip.text import evaluating
from ..adapter import clip_of


def mean_gradients(slots: Sequence[Slot], model: nn.Module, experience, batch_size: int) -> dict[str, Tensor]:
    """Slot name → ∂L/∂W with L the mean cross-entropy of an experience's images.

    Args:
        slots: whose weights; without factors on them.
        model: the classifier.
        experience: its images.
        batch_size: images that are computed together.
    """
    names = list(dict.fromkeys(slot.parameter for slot in slots))
    total = {name: torch.zeros_like(clip_of(model).get_parameter(name)) for name in names}

    def add(gradients: dict[str, Tensor]) -> None:
        for name, gradient in gradients.items():
            total[name] += gradient

    each_gradient(names, model, experience, batch_size, add, experience.train_images)
    return {slot.name: total[slot.parameter][slot.rows] for slot in slots}


def each_gradient(
    names: Sequence[str],
    model: nn.Module,
    experience,
    batch_size: int,
    see: Callable[[dict[str, Tensor]], None],
    over: int | None = None,
) -> None:
    """Show the gradients of one batch after the other, plain images with each class's first prompt.

    Args:
        names: of parameters.
        model: the classifier.
        experience: its images.
        batch_size: images of a batch.
        see: given name → gradient of the batch's cross-entropy, without parameters that have none.
        over: what the sum over the batch's images is divided by; their number by default.
    """
    clip = clip_of(model)
    parameters = [clip.get_parameter(name) for name in names]
    required = {p: p.requires_grad for p in model.parameters()}
    device = parameters[0].device
    model.requires_grad_(False)
    for p in parameters:
        p.requires_grad_(True)
    try:
        with torch.enable_grad(), evaluating(model):
            for part, space in zip(experience.parts, experience.of_parts, strict=True):
                batches = zip(
                    part.train.pixels.split(batch_size), part.train.labels.split(batch_size), strict=True
                )
                for images, labels in batches:
                    logits = model(images.to(device), space.with_template(0))
                    loss = F.cross_entropy(logits, labels.to(device), reduction="sum") / (over or len(labels))
                    found = torch.autograd.grad(loss, parameters, allow_unused=True)
                    see({name: g for name, g in zip(names, found, strict=True) if g is not None})
    finally:
        for p, needed in required.items():
            p.requires_grad_(needed)
