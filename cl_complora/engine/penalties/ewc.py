"""Elastic weight consolidation on effective weights, at the cost of two tensors per weight for any number of
tasks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...config.penalties import Ewc
from ..adapter import AdapterPlugin
from ..constraints import stable_seed
from ..regularisers import RegulariserPlugin
from .fisher import diagonal_fisher


class EwcPlugin(RegulariserPlugin, supports_distributed=False):
    """Elastic weight consolidation (Kirkpatrick et al., 2017): strength/2 · Σ F (W − W*)².

    F is the true diagonal Fisher from per-sample gradients with labels drawn from the model (not squared mean
    gradients of a batch). A sum of quadratics is one quadratic, so any number of tasks costs two tensors per
    weight:

        Σ_i F_i (W − W_i)² = F (W − C)² + rest,   F = Σ_i F_i,   C = Σ_i F_i W_i / F

    ``online`` (Schwarz et al., 2018) lets the Fisher decay and moves the centre to the latest weights
    instead.

    Attributes:
        fisher, centre: weight key → F and C; empty before the first task ends.
        rest: what the penalty is at its minimum (constant in W; kept so that its value is the formula's).
    """

    def __init__(self, settings: Ewc, adapter: AdapterPlugin, seed: int) -> None:
        super().__init__()
        self.settings, self.adapter, self.seed = settings, adapter, seed
        self.fisher: dict[str, Tensor] = {}
        self.centre: dict[str, Tensor] = {}
        self.rest = 0.0

    def penalty(self, strategy) -> Tensor | None:
        """Distance from the centre, weighed by the Fisher."""
        if not self.fisher:
            return None
        weights = self.adapter.effective_weights()
        total = sum((f * (weights[key] - self.centre[key]).square()).sum() for key, f in self.fisher.items())
        return 0.5 * self.settings.strength * (total + self.rest)

    def after_training_exp(self, strategy, **kwargs) -> None:
        """Fisher of the merged weights (the adapter, first in the plugin list, has merged by now)."""
        experience = strategy.experience
        weights = {key: w.detach() for key, w in self.adapter.effective_weights().items()}
        generator = torch.Generator().manual_seed(
            stable_seed(self.seed, experience.current_experience, "fisher")
        )
        self.add(
            diagonal_fisher(strategy.model, weights, experience, self.settings.samples, generator), weights
        )

    @torch.no_grad()
    def add(self, fisher: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
        """One more quadratic F (W − weights)²."""
        for key, new in fisher.items():
            if key not in self.fisher:
                self.fisher[key], self.centre[key] = new.clone(), weights[key].clone()
            elif self.settings.online:
                self.fisher[key].mul_(self.settings.decay).add_(new)
                self.centre[key].copy_(weights[key])
            else:
                old, gap = self.fisher[key], weights[key] - self.centre[key]
                total = old + new
                share = torch.where(total > 0, new / total, torch.zeros_like(total))
                self.rest += float((old * share * gap.square()).sum(dtype=torch.float64))
                self.centre[key] += share * gap
                self.fisher[key] = total

    def tensors(self) -> dict[str, Tensor]:
        """The quadratic."""
        named = {
            f"{kind}/{key}": v for kind in ("fisher", "centre") for key, v in getattr(self, kind).items()
        }
        return named | {"rest": torch.tensor(self.rest, dtype=torch.float64)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take it back."""
        for name, value in tensors.items():
            kind, _, key = name.partition("/")
            if kind == "rest":
                self.rest = float(value)
            else:
                getattr(self, kind)[key] = value
