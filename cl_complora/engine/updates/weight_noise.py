"""Flat-LoRA: the loss of a step is that of randomly disturbed weights, so that factors end where it is
flat."""

from __future__ import annotations

import math

import torch
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor

from ..own_draws import OwnDraws
from .complora import CompLoRAPlugin


class WeightNoisePlugin(OwnDraws, SupervisedPlugin, supports_distributed=False):
    """Flat-LoRA (Li et al., ICML 2025, its code): W + ε while a step's loss and gradients are computed.

        ε_ij ~ N(0, σ_i²),   σ_i = ρ·f/√in · ‖(W + ΔW)_i‖,   f = (1 − cos(π·t/T))/2

    Afterwards W has its former bits: it is put back, not subtracted from. Noise comes from a generator of its
    own (the authors' code seeds the global one from the clock).

    Args:
        rho: ρ.
        adapter: whose weights.
        seed: of the run.
    """

    purpose = "noise"

    def __init__(self, rho: float, adapter: CompLoRAPlugin, seed: int) -> None:
        super().__init__(seed)
        self.rho, self.adapter = rho, adapter
        self._clean: dict[str, Tensor] = {}

    @torch.no_grad()
    def before_forward(self, strategy, **kwargs) -> None:
        """Disturb."""
        batches = strategy.dataloader
        for slot in self.adapter.slots:
            weight = slot.weight
            self._clean[slot.name] = weight.clone()
            updated = weight + self.adapter.blocks[slot.name].update()
            deviation = row_deviation(updated, self.rho, batches.done - 1, len(batches))
            noise = torch.randn(weight.shape, generator=self.generator).to(weight)
            weight.add_(deviation[:, None] * noise)

    @torch.no_grad()
    def after_backward(self, strategy, **kwargs) -> None:
        """Put the weights back."""
        for slot in self.adapter.slots:
            slot.weight.copy_(self._clean.pop(slot.name))


def row_deviation(weight: Tensor, rho: float, step: int, steps: int) -> Tensor:
    """σ of every row.

    Args:
        weight: W + ΔW, ``out × in``.
        rho: ρ.
        step, steps: t from 0, and T.
    """
    growing = 0.5 * (1 - math.cos(math.pi * step / steps))
    return growing * rho / weight.shape[1] ** 0.5 * torch.linalg.vector_norm(weight, dim=1)
