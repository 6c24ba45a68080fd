"""Staying close to a teacher: the previous state on the current images, or the pretrained one on reference
data."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...clip.classifier import ClipClassifier
from ...clip.evaluate import image_features
from ...clip.text import evaluating
from ...config.penalties import Lwf, Reference, Similarities
from ...data.labels import LabelSpace
from ...data.tasks import StreamData, TaskData
from ..adapter import AdapterPlugin
from ..own_draws import OwnDraws
from ..regularisers import RegulariserPlugin


class Distillation(RegulariserPlugin, supports_distributed=False):
    """Base of those that hold similarities of images to texts, of the teacher or of the student."""

    settings: Lwf | Reference | Similarities

    @property
    def through_images(self) -> bool:
        """Yes, unless the student's own texts are read."""
        return self.settings.texts_of == "teacher"


class LwfPlugin(Distillation, supports_distributed=False):
    """Learning without forgetting as its paper has it (Li & Hoiem, 2016), for a text head.

    strength · mean over earlier label spaces of KL(teacher ‖ student) at a temperature, on the current
    images. The teacher is the previous merged state: the same model with this experience's update taken out,
    no copy. Where the experience has images of all classes of an earlier space, as in another domain, nothing
    is held to what was answered for them: their labels say better, and the two would pull apart. In a stream
    of tasks that share no labels, the same names in other prompts are other classes.
    """

    def __init__(self, settings: Lwf, adapter: AdapterPlugin, seed: int) -> None:
        super().__init__()
        self.settings, self.adapter = settings, adapter
        self.spaces: list[LabelSpace] = []
        self.shares_labels = False
        self._held: list[tuple[LabelSpace, Tensor]] = []

    def meet(self, model: ClipClassifier, data: StreamData) -> None:
        """Learn whether the tasks share their labels."""
        self.shares_labels = data.shares_labels

    @torch.no_grad()
    def before_training_exp(self, strategy, **kwargs) -> None:
        """Teacher text features are the same in every step of an experience: encode them once."""
        parts = strategy.experience.parts
        own = [part.train_space.with_template(0) for part in parts]
        taught = {
            space.class_names[label]
            for part, space in zip(parts, own, strict=True)
            for label in part.train.labels.unique().tolist()
        }
        held = [
            space
            for space in self.spaces
            if not taught.issuperset(space.class_names) or not (self.shares_labels or space in own)
        ]
        with self.adapter.previous():
            self._held = [(space, strategy.model.text.encode_space(space)) for space in held]

    def penalty(self, strategy) -> Tensor | None:
        """Distillation over the earlier label spaces that are held."""
        if not self._held:
            return None
        model, images = strategy.model, strategy.mb_x
        scale = model.clip.logit_scale.float().exp() / self.settings.temperature
        with torch.no_grad(), self.adapter.previous():
            teacher = model.image_features(images)
        student = strategy.mb_features
        losses = []
        for space, texts in self._held:
            own = texts if self.settings.texts_of == "teacher" else model.text.features(space)
            losses.append(_distillation(scale * student @ own.mT, scale * teacher @ texts.mT))
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


class ReferencePlugin(OwnDraws, Distillation, supports_distributed=False):
    """ZSCL (Zheng et al., ICCV 2023, arXiv 2303.06628): stay close to the pretrained model on data of no
    task.

    strength · :func:`similarity_loss` on a random batch of the scenario's reference images and class texts.
    The teacher is the pretrained model, whose features are computed once. Unlike the other penalties it acts
    from the first experience on.
    """

    purpose = "reference"
    needs_reference = Reference.needs_reference

    def __init__(self, settings: Reference, adapter: AdapterPlugin, seed: int) -> None:
        super().__init__(seed)
        self.settings = settings

    @torch.no_grad()
    def meet(self, model: ClipClassifier, data: StreamData) -> None:
        """The teacher's features of all reference images and texts."""
        images, space = data.reference
        self.images, self.space = images, space
        with evaluating(model):
            self._teacher_images = image_features(model, images.pixels)
            whole = [model.text.encode_space(space.with_template(i)) for i in range(space.templates)]
            self._teacher_texts = torch.stack(whole)

    def penalty(self, strategy) -> Tensor:
        """Distillation on one batch of references, in both directions."""
        model = strategy.model
        shown = self._drawn(len(self.images), self.settings.batch_size)
        read = self._drawn(len(self.space), self.settings.texts)
        template = int(torch.randint(self.space.templates, (1,), generator=self.generator))
        device = self._teacher_images.device
        teacher_images = self._teacher_images[shown.to(device)]
        teacher_texts = texts = self._teacher_texts[template][read.to(device)]
        images = model.image_features(self.images.pixels[shown].to(device))
        if self.settings.texts_of == "student":
            tokens = model.text.tokens(self.space.with_template(template))[read.to(device)]
            texts = F.normalize(model.text.encode(tokens).float(), dim=-1)
        scale = model.clip.logit_scale.float().exp()
        student, teacher = scale * images @ texts.mT, scale * teacher_images @ teacher_texts.mT
        return self.settings.strength * similarity_loss(student, teacher, self.settings.temperature)

    def _drawn(self, available: int, wanted: int) -> Tensor:
        return torch.randperm(available, generator=self.generator)[:wanted]


class PreviousTexts:
    """Class texts of the state before an experience, each of the latest label spaces encoded once."""

    # Captions are drawn anew at every step, and no two steps have the same texts.
    MOST = 256

    def __init__(self) -> None:
        self._known: dict[LabelSpace, Tensor] = {}

    def forget(self) -> None:
        """Another experience, another state before it."""
        self._known = {}

    def of(self, model: ClipClassifier, space: LabelSpace) -> Tensor:
        """Unit features; asked for while the model is in that state."""
        if space not in self._known:
            if len(self._known) == self.MOST:
                del self._known[next(iter(self._known))]
            self._known[space] = model.text.encode_space(space)
        return self._known[space]


class SimilaritiesPlugin(Distillation, supports_distributed=False):
    """What ZSCL (arXiv 2303.06628) calls LwF among its baselines: :func:`similarity_loss` on the batch's own
    images and the task's own class texts.

    The teacher is the state before the task, which for the first one is the pretrained model.
    """

    def __init__(self, settings: Similarities, adapter: AdapterPlugin, seed: int) -> None:
        super().__init__()
        self.settings, self.adapter = settings, adapter
        self._teacher_texts = PreviousTexts()

    def before_training_exp(self, strategy, **kwargs) -> None:
        """Another experience, another teacher."""
        self._teacher_texts.forget()

    def penalty(self, strategy) -> Tensor:
        """Over the label spaces of the batch, each with its own images."""
        model, images, spaces = strategy.model, strategy.mb_x, strategy.spaces
        with torch.no_grad(), self.adapter.previous():
            teacher = model.image_features(images)
            taught = [self._teacher_texts.of(model, space) for space in spaces]
        student = strategy.mb_features
        scale = model.clip.logit_scale.float().exp()
        losses = []
        for space, theirs, members in zip(spaces, taught, members_of(strategy), strict=True):
            if bool(members.any()):
                texts = theirs if self.settings.texts_of == "teacher" else model.text.features(space)
                logits = scale * student[members] @ texts.mT, scale * teacher[members] @ theirs.mT
                losses.append(similarity_loss(*logits, self.settings.temperature))
        return self.settings.strength * torch.stack(losses).mean()


def similarity_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · (KL(softmax_texts L_T/T ‖ softmax_texts L/T) + KL(softmax_images L_T/T ‖ softmax_images L/T)),
    each the mean over its rows.

    T² keeps the gradient of the size that it has at temperature 1. ZSCL's code has cross-entropies in place
    of the divergences, which differ from them by the teacher's entropies alone and have the same gradient.

    Args:
        student, teacher: L and L_T, scaled similarities, images × texts.
        temperature: T.
    """
    student, teacher = student / temperature, teacher / temperature
    both = [_distillation(s, t) for s, t in ((student, teacher), (student.mT, teacher.mT))]
    return temperature**2 * torch.stack(both).sum()


def members_of(strategy) -> list[Tensor]:
    """For every label space of the batch, which of its images have it."""
    count = len(strategy.spaces)
    if count == 1:
        return [torch.ones(len(strategy.mb_x), dtype=torch.bool, device=strategy.mb_x.device)]
    return [strategy.mbatch[2] == index for index in range(count)]


def _distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax teacher ‖ softmax student), the mean over rows."""
    return F.kl_div(F.log_softmax(student, 1), F.softmax(teacher, 1), reduction="batchmean")
