"""Penalties on leaving the past behind, on effective weights (W + ΔW) and low-rank factors.

The stock Avalanche plugins copy the whole frozen model per task (EWC) or break on a text head (LwF). These
act on the adapted weights only, through :meth:`AdapterPlugin.effective_weights`, so they mean the same before
and after a merge.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from numbers import Real

import torch
from torch import Tensor

from ..clip.classifier import ClipClassifier
from ..config.penalties import L2Init, Orthogonal
from .adapter import AdapterPlugin
from .task_state import CarryingPlugin, WrongAnswer


class RegulariserPlugin(CarryingPlugin, supports_distributed=False):
    """Adds a term to the loss of every step."""

    @property
    def through_images(self) -> bool:
        """Whether the gradient enters through image features alone: of a still image tower there is none."""
        return False

    def fits(self, model: ClipClassifier) -> None:
        """Find out before any work whether the model has what is needed.

        Raises:
            ValueError: saying what is missing.
        """

    def before_backward(self, strategy, **kwargs) -> None:
        """loss += penalty."""
        penalty = self.penalty(strategy)
        if penalty is None:
            return
        if not (penalty.numel() == 1 if isinstance(penalty, Tensor) else isinstance(penalty, Real)):
            got = f"shape {tuple(penalty.shape)}" if isinstance(penalty, Tensor) else type(penalty).__name__
            raise WrongAnswer(self, "penalty", "a tensor of one number, or None", got)
        strategy.loss = strategy.loss + penalty

    @abstractmethod
    def penalty(self, strategy) -> Tensor | None:
        """The term for the current mini-batch, or None."""


class L2InitPlugin(RegulariserPlugin, supports_distributed=False):
    """strength · ‖W − W*‖²_F with W* the pretrained or the previous merged weights."""

    def __init__(self, settings: L2Init, adapter: AdapterPlugin, seed: int) -> None:
        super().__init__()
        self.settings, self.adapter = settings, adapter
        self.anchor: dict[str, Tensor] = {}

    def before_training_exp(self, strategy, **kwargs) -> None:
        """Remember the start of the stream, or of this experience."""
        if not self.anchor or self.settings.to == "previous":
            # Factors may begin elsewhere than where the last task ended (SD-LoRA's lengths).
            with self.adapter.previous():
                self.anchor = {k: w.detach().clone() for k, w in self.adapter.effective_weights().items()}

    def penalty(self, strategy) -> Tensor:
        """The squared distance."""
        weights = self.adapter.effective_weights()
        return self.settings.strength * sum(
            (w - self.anchor[key]).square().sum() for key, w in weights.items()
        )

    @property
    def carries_tensors(self) -> bool:
        """Not where every experience begins with an anchor of its own."""
        return self.settings.to == "pretrained"

    def tensors(self) -> dict[str, Tensor]:
        """The anchor, where it is older than this experience."""
        return dict(self.anchor) if self.carries_tensors else {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the anchor back."""
        self.anchor = dict(tensors)


class OrthogonalPlugin(RegulariserPlugin, supports_distributed=False):
    """O-LoRA (Wang et al., EMNLP Findings 2023, arXiv 2310.14152): strength · Σ_matrices Σ_{i<t} Σ |A_t
    A_iᵀ|.

    A_i are the input factors of earlier tasks, which the run keeps as its deltas anyway. ``norm`` adds
    norm · Σ_matrices (‖A_t‖_F + ‖B_t‖_F), the norms not squared, from the first task on.
    """

    def __init__(self, settings: Orthogonal, adapter: AdapterPlugin, seed: int) -> None:
        super().__init__()
        self.settings, self.adapter = settings, adapter
        self._earlier: dict[str, Tensor] = {}

    def before_training_exp(self, strategy, **kwargs) -> None:
        """Stack the input factors of all finished tasks."""
        stacked: dict[str, list[Tensor]] = {}
        for delta in self.adapter.deltas:
            for key, (_, a) in delta.factors.items():
                stacked.setdefault(key, []).append(a)
        self._earlier = {key: torch.cat(many).to(strategy.device) for key, many in stacked.items()}

    def penalty(self, strategy) -> Tensor | None:
        """Overlap of the current input factors with the earlier ones, and the norms of both factors."""
        total = None
        if self._earlier:
            factors = self.adapter.factors()
            overlap = sum((factors[key][1] @ a.mT).abs().sum() for key, a in self._earlier.items())
            total = self.settings.strength * overlap
        if self.settings.norm > 0:
            norms = sum(factor.norm() for factor in self.adapter.trained_factors())
            total = self.settings.norm * norms + (0.0 if total is None else total)
        return total
