"""Penalties on leaving the past behind, on effective weights (W + ΔW) and text-head logits.

The stock Avalanche plugins copy the whole frozen model per task (EWC) or break on a text head (LwF). These act on the
adapted weights only, through :meth:`AdapterPlugin.effective_weights`, so they mean the same before and after a merge.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config.strategy import Ewc, L2Init, Lwf
from ..data.labels import LabelSpace
from ..data.stream import TaskData
from .adapter import AdapterPlugin
from .carrying import CarryingPlugin
from .fisher import diagonal_fisher
from .subspaces import stable_seed


class RegulariserPlugin(CarryingPlugin, supports_distributed=False):
    """Adds a term to the loss of every step after the first experience."""

    def before_backward(self, strategy, **kwargs) -> None:
        """loss += penalty."""
        penalty = self.penalty(strategy)
        if penalty is not None:
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
            self.anchor = {key: w.detach().clone() for key, w in self.adapter.effective_weights().items()}

    def penalty(self, strategy) -> Tensor:
        """The squared distance."""
        weights = self.adapter.effective_weights()
        return self.settings.strength * sum((w - self.anchor[key]).square().sum() for key, w in weights.items())

    def tensors(self) -> dict[str, Tensor]:
        """The anchor, where it is older than this experience."""
        return dict(self.anchor) if self.settings.to == "pretrained" else {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the anchor back."""
        self.anchor = dict(tensors)


class EwcPlugin(RegulariserPlugin, supports_distributed=False):
    """Elastic weight consolidation (Kirkpatrick et al., 2017): strength/2 · Σ F (W − W*)².

    F is the true diagonal Fisher from per-sample gradients with labels drawn from the model (not squared mean
    gradients of a batch). ``online`` keeps one running pair (Schwarz et al., 2018), otherwise one pair per task.
    """

    def __init__(self, settings: Ewc, adapter: AdapterPlugin, seed: int) -> None:
        super().__init__()
        self.settings, self.adapter, self.seed = settings, adapter, seed
        self.fisher: list[dict[str, Tensor]] = []
        self.anchor: list[dict[str, Tensor]] = []

    def penalty(self, strategy) -> Tensor | None:
        """Distance from every anchor, weighed by its Fisher."""
        if not self.fisher:
            return None
        weights = self.adapter.effective_weights()
        total = sum(
            (fisher[key] * (weights[key] - anchor[key]).square()).sum()
            for fisher, anchor in zip(self.fisher, self.anchor, strict=True)
            for key in fisher
        )
        return 0.5 * self.settings.strength * total

    def after_training_exp(self, strategy, **kwargs) -> None:
        """Fisher and anchor of the merged weights (the adapter, first in the plugin list, has merged by now)."""
        experience = strategy.experience
        anchor = {key: w.detach().clone() for key, w in self.adapter.effective_weights().items()}
        generator = torch.Generator().manual_seed(stable_seed(self.seed, experience.current_experience, "fisher"))
        fisher = diagonal_fisher(strategy.model, anchor, experience, self.settings.samples, generator)
        if self.settings.online and self.fisher:
            fisher = {key: self.settings.decay * self.fisher[0][key] + value for key, value in fisher.items()}
        if self.settings.online:
            self.fisher, self.anchor = [fisher], [anchor]
        else:
            self.fisher.append(fisher)
            self.anchor.append(anchor)

    def tensors(self) -> dict[str, Tensor]:
        """All pairs."""
        pairs = (("fisher", self.fisher), ("anchor", self.anchor))
        return {
            f"{kind}/{i}/{key}": v for kind, many in pairs for i, part in enumerate(many) for key, v in part.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take them back."""
        for key, value in tensors.items():
            kind, index, name = key.split("/", 2)
            parts = getattr(self, kind)
            while len(parts) <= int(index):
                parts.append({})
            parts[int(index)][name] = value


class LwfPlugin(RegulariserPlugin, supports_distributed=False):
    """Learning without forgetting (Li & Hoiem, 2016) for a text head.

    strength · mean over earlier label spaces of KL(teacher ‖ student) at a temperature, on the current images. The
    teacher is the previous merged state: the same model with this experience's update taken out, no copy.
    """

    def __init__(self, settings: Lwf, adapter: AdapterPlugin, seed: int) -> None:
        super().__init__()
        self.settings, self.adapter = settings, adapter
        self.spaces: list[LabelSpace] = []
        self._teacher_texts: list[Tensor] = []

    @torch.no_grad()
    def before_training_exp(self, strategy, **kwargs) -> None:
        """Teacher text features are the same in every step of an experience: encode them once."""
        with self.adapter.previous():
            self._teacher_texts = [strategy.model.text.encode_space(space) for space in self.spaces]

    def penalty(self, strategy) -> Tensor | None:
        """Distillation over all earlier label spaces."""
        if not self.spaces:
            return None
        model, images = strategy.model, strategy.mb_x
        scale = model.clip.logit_scale.float().exp() / self.settings.temperature
        with torch.no_grad(), self.adapter.previous():
            teacher = model.image_features(images)
        student = model.image_features(images)
        losses = []
        for space, texts in zip(self.spaces, self._teacher_texts, strict=True):
            target = F.softmax(scale * teacher @ texts.mT, dim=1)
            output = F.log_softmax(scale * student @ model.text.features(space).mT, dim=1)
            losses.append(F.kl_div(output, target, reduction="batchmean"))
        return self.settings.strength * torch.stack(losses).mean()

    def after_training_exp(self, strategy, **kwargs) -> None:
        """This experience's classes are an earlier label space from now on."""
        for task in strategy.experience.parts:
            self.remember(task)

    def remember(self, task: TaskData) -> None:
        """Add the task's label space (with its first prompt, as the teacher's reference)."""
        self.spaces.append(task.train_space.with_template(0))
