"""BA-LoRA's regularisers (arXiv 2408.04556, its code): what the answers of a batch look like as a matrix.

All three act on cosines rather than logits, images × classes: at CLIP's scale of 100 the second would be 10⁸
times as large. Where a batch has several label spaces, each counts by its images.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from ...config.penalties import Consistency, Diversity, Spectrum
from ...data.labels import LabelSpace
from ..adapter import AdapterPlugin
from ..regularisers import RegulariserPlugin
from .distillation import PreviousTexts, members_of


class LogitTermPlugin(RegulariserPlugin, supports_distributed=False):
    """strength · a term of the batch's cosines."""

    def __init__(
        self, settings: Consistency | Diversity | Spectrum, adapter: AdapterPlugin, seed: int
    ) -> None:
        super().__init__()
        self.settings, self.adapter = settings, adapter

    def penalty(self, strategy) -> Tensor:
        """The mean of the term over images, with the label space of each."""
        clip = strategy.model.clip
        scale, bias = clip.logit_scale.detach().float().exp(), getattr(clip, "logit_bias", None)
        shift = 0.0 if bias is None else bias.float()
        total, images = strategy.mb_output.new_zeros(()), len(strategy.mb_output)
        for space, members in zip(strategy.spaces, members_of(strategy), strict=True):
            if bool(members.any()):
                z = (strategy.mb_output[members, : len(space)].float() - shift) / scale
                total = total + len(z) / images * self.term(z, strategy, space, members)
        return self.settings.strength * total

    @abstractmethod
    def term(self, z: Tensor, strategy, space: LabelSpace, members: Tensor) -> Tensor:
        """Of the cosines (images × classes) of those images of the batch that have a label space."""


class ConsistencyPlugin(LogitTermPlugin, supports_distributed=False):
    """:func:`consistency` with the state before the task."""

    def __init__(
        self, settings: Consistency | Diversity | Spectrum, adapter: AdapterPlugin, seed: int
    ) -> None:
        super().__init__(settings, adapter, seed)
        self._texts = PreviousTexts()

    def before_training_exp(self, strategy, **kwargs) -> None:
        """Another experience, another state before it."""
        self._texts.forget()

    def term(self, z: Tensor, strategy, space: LabelSpace, members: Tensor) -> Tensor:
        """As in the base class; nothing of the state before has a gradient."""
        model = strategy.model
        with torch.no_grad(), self.adapter.previous():
            before = model.image_features(strategy.mb_x[members]) @ self._texts.of(model, space).mT
        return consistency(z, before)


class DiversityPlugin(LogitTermPlugin, supports_distributed=False):
    """:func:`diversity`."""

    def term(self, z: Tensor, strategy, space: LabelSpace, members: Tensor) -> Tensor:
        """As in the base class."""
        return diversity(z)


class SpectrumPlugin(LogitTermPlugin, supports_distributed=False):
    """:func:`spectrum`."""

    def term(self, z: Tensor, strategy, space: LabelSpace, members: Tensor) -> Tensor:
        """As in the base class."""
        return spectrum(z, self.settings.largest)


def consistency(z: Tensor, before: Tensor) -> Tensor:
    """Mean over all entries of (z/‖z‖ − z⁰/‖z⁰‖)², rows normalised."""
    now, then = (F.normalize(rows, dim=1) for rows in (z, before))
    return (now - then).square().mean()


def diversity(z: Tensor) -> Tensor:
    """Σ_{i≠j} Cov_ij² / classes, Cov unbiased over the images; 0 for a single image, which has none."""
    if len(z) < 2:
        return z.new_zeros(())
    centred = z - z.mean(0)
    covariance = centred.mT @ centred / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


def spectrum(z: Tensor, largest: int) -> Tensor:
    """−(σ₁ + … + σ_k) / Σ σ of z itself, not centred; what is no number where z is none."""
    if not bool(torch.isfinite(z).all()):  # the decomposition would raise where the step is to be judged
        return z.sum() * torch.nan
    sigma = torch.linalg.svdvals(z)
    return -sigma[:largest].sum() / sigma.sum()
