"""Avalanche's weight penalties on effective weights, W + ΔW.

EWC and MAS compare ``model.named_parameters()`` with what they were. While factors are trained, those are the
frozen W, so the penalty is a constant without a gradient, whatever its strength. Here the two see, in their
own hooks and nowhere else, W + s·B′A′ under W's name: the same entries that they find, merged, at the end of
the experience, when they store them and measure their importance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from ...clip.slots import Slot
from ...lowrank import LowRankBlock
from ..adapter import clip_of


def act_on_effective_weights(
    penalty: SupervisedPlugin, slots: Sequence[Slot], blocks: Mapping[str, LowRankBlock]
) -> None:
    """From now on ``penalty`` holds effective weights (idempotent).

    Args:
        penalty: adds to the loss in ``before_backward`` and looks at the merged model in
            ``after_training_exp``.
        slots: what is adapted.
        blocks: slot name → factors; empty between experiences.
    """
    penalty.before_backward = partial(_penalise, penalty, slots, blocks)
    penalty.after_training_exp = partial(_consolidate, penalty, slots)


def _penalise(penalty, slots, blocks, strategy, **kwargs) -> None:
    with effective_parameters(strategy.model, slots, blocks):
        type(penalty).before_backward(penalty, strategy, **kwargs)


def _consolidate(penalty, slots, strategy, **kwargs) -> None:
    """Importances are gradients of the adapted weights, which somebody may have frozen for training."""
    parameters = [clip_of(strategy.model).get_parameter(slot.parameter) for slot in slots]
    frozen = [p for p in parameters if not p.requires_grad]
    for p in frozen:
        p.requires_grad_(True)
    try:
        type(penalty).after_training_exp(penalty, strategy, **kwargs)
    finally:
        for p in frozen:
            p.requires_grad_(False)
            p.grad = None


@contextmanager
def effective_parameters(
    model: nn.Module, slots: Sequence[Slot], blocks: Mapping[str, LowRankBlock]
) -> Iterator[None]:
    """Within, ``model.named_parameters()`` gives W + s·B′A′, differentiable, in W's place, and no factors."""
    clip = clip_of(model)
    effective: dict[int, Tensor] = {}
    for slot in slots:
        if slot.name in blocks:
            p = clip.get_parameter(slot.parameter)
            whole = effective.setdefault(id(p), p.detach().clone())
            whole[slot.rows] += blocks[slot.name].update()
    factors = {id(p) for block in blocks.values() for p in block.parameters()}
    all_named = model.named_parameters

    def named_parameters(*args, **kwargs) -> Iterator[tuple[str, Tensor]]:
        for name, p in all_named(*args, **kwargs):
            if id(p) not in factors:
                yield name, effective.get(id(p), p)

    model.named_parameters = named_parameters
    try:
        yield
    finally:
        del model.named_parameters
