"""Staying close to a teacher: the previous state on the current images, or the pretrained one on reference
data."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from ..clip.classifier import ClipClassifier
from ..clip.text import evaluating
from ..config.strategy import Lwf, Reference
from ..data.labels import LabelSpace
from ..data.tasks import StreamData, TaskData
from .adapter import AdapterPlugin
from .checkpoint import StepState
from .constraints import stable_seed
from .regularisers import RegulariserPlugin


class LwfPlugin(RegulariserPlugin, supports_distributed=False):
    """Learning without forgetting (Li & Hoiem, 2016) for a text head.

    strength · mean over earlier label spaces of KL(teacher ‖ student) at a temperature, on the current
    images. The teacher is the previous merged state: the same model with this experience's update taken out,
    no copy.
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
            losses.append(
                _distillation(scale * student @ model.text.features(space).mT, scale * teacher @ texts.mT)
            )
        return self.settings.strength * torch.stack(losses).mean()

    def after_training_exp(self, strategy, **kwargs) -> None:
        """This experience's classes are an earlier label space from now on."""
        for task in strategy.experience.parts:
            self.remember(task)

    def remember(self, task: TaskData) -> None:
        """Add the task's label space (with its first prompt, as the teacher's reference)."""
        space = task.train_space.with_template(0)
        if space not in self.spaces:
            self.spaces.append(space)


class ReferencePlugin(RegulariserPlugin, StepState, supports_distributed=False):
    """ZSCL (Zheng et al., ICCV 2023, arXiv 2303.06628): stay close to the pretrained model on data of no
    task.

    With S = scale · (reference images · reference textsᵀ) / temperature of teacher and student,

        strength · (KL(softmax_texts S_T ‖ softmax_texts S) + KL(softmax_images S_T ‖ softmax_images S))

    on a random batch of the scenario's reference images and class texts. The teacher is the pretrained model,
    whose features are computed once. Unlike the other penalties it acts from the first experience on.
    """

    needs_reference = True

    def __init__(self, settings: Reference, adapter: AdapterPlugin, seed: int) -> None:
        super().__init__()
        self.settings, self.seed = settings, seed
        self._generator = torch.Generator()

    @torch.no_grad()
    def meet(self, model: ClipClassifier, data: StreamData) -> None:
        """The teacher's features of all reference images and texts."""
        images, space = data.reference
        device = next(model.parameters()).device
        self.images, self.space = images, space
        with evaluating(model):
            batches = images.pixels.split(256)
            self._teacher_images = torch.cat([model.image_features(batch.to(device)) for batch in batches])
            whole = [model.text.encode_space(space.with_template(i)) for i in range(space.templates)]
            self._teacher_texts = torch.stack(whole)

    def before_training_exp(self, strategy, **kwargs) -> None:
        """Every experience draws from a generator of its own."""
        self._generator.manual_seed(
            stable_seed(self.seed, strategy.experience.current_experience, "reference")
        )

    def penalty(self, strategy) -> Tensor:
        """Distillation on one batch of references, in both directions."""
        model = strategy.model
        shown = self._drawn(len(self.images), self.settings.batch_size)
        read = self._drawn(len(self.space), self.settings.texts)
        template = int(torch.randint(self.space.templates, (1,), generator=self._generator))
        device = self._teacher_images.device
        tokens = model.text.tokens(self.space.with_template(template))[read.to(device)]
        student_images = model.image_features(self.images.pixels[shown].to(device))
        student_texts = F.normalize(model.text.encode(tokens).float(), dim=-1)
        scale = model.clip.logit_scale.float().exp() / self.settings.temperature
        teacher = (
            scale * self._teacher_images[shown.to(device)] @ self._teacher_texts[template][read.to(device)].mT
        )
        student = scale * student_images @ student_texts.mT
        both = [_distillation(s, t) for s, t in ((student, teacher), (student.mT, teacher.mT))]
        return self.settings.strength * torch.stack(both).sum()

    def step_state(self) -> dict[str, Tensor]:
        """Place in the stream of random numbers."""
        return {"generator": self._generator.get_state()}

    def load_step_state(self, tensors: Mapping[str, Tensor]) -> None:
        """As in the base class."""
        self._generator.set_state(tensors["generator"])

    def _drawn(self, available: int, wanted: int) -> Tensor:
        return torch.randperm(available, generator=self._generator)[:wanted]


def _distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax teacher ‖ softmax student), the mean over rows."""
    return F.kl_div(F.log_softmax(student, 1), F.softmax(teacher, 1), reduction="batchmean")
