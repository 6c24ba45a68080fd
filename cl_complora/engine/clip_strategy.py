"""The training strategy: Avalanche's loop and hooks around a text-head CLIP, with its silent failures closed
off.

What is overridden, and why (measured, avalanche-lib 0.6.0):

* ``check_model_and_optimizer``: the stock one puts every parameter, frozen ones included, into the optimiser.
* ``make_train_dataloader``: ours draws from its own generator, so evaluation and other loaders shift nothing.
* ``backward``, ``optimizer_step``: loss scaling for 16-bit floats.
* ``forward``: the label space comes from the experience, so an evaluation in the middle cannot leave another
behind.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from avalanche.training.plugins import EvaluationPlugin, SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from ..clip.blocks import Computing
from ..clip.classifier import ClipClassifier
from ..config.training import Training
from ..data.labels import LabelSpace
from .adapter import AdapterPlugin
from .constraints import stable_seed
from .experience import ClipExperience, TrainingBatches
from .frozen_features import FrozenBeginning
from .training.caption_pairs import loss_with_captions
from .training.training_loss import Answered, training_loss


def _no_metrics() -> EvaluationPlugin:
    # Avalanche's metrics are keyed by experience number and mix streams; ours come from ``run``.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified")
        return EvaluationPlugin(collect_all=False)


class ClipStrategy(SupervisedTemplate):
    """Trains a :class:`~cl_complora.clip.classifier.ClipClassifier` on one experience after another.

    Args:
        model: the classifier.
        make_optimizer: trainable parameters → optimiser; called for every experience, with a fresh state.
        training: steps, batch size and loss settings.
        seed: of the whole run.
        device: where to train.
        plugins: adapter first, then regularisers and memory.

    Attributes:
        steps: of the next experience; those of the settings (with ``auto`` the fewest) unless changed (joint
            training takes those of all tasks).
        mb_features: unit image features of the mini-batch, for penalties that would compute them again.
        counts: whether the present step is taken, as far as loss and gradients tell; what keeps moments,
            scores or masks of its own looks here. Always True where nothing is ever left out.
        skipped: steps of the last experience that changed nothing because of a loss or gradient that is no
            number.
    """

    def __init__(
        self,
        *,
        model: ClipClassifier,
        make_optimizer: Callable[[list[nn.Parameter]], Optimizer],
        training: Training,
        seed: int = 0,
        device: str | torch.device = "cpu",
        plugins: Sequence[SupervisedPlugin] = (),
    ) -> None:
        self.training_settings, self.seed, self.steps = training, seed, training.steps_for(0)
        self.skipped, self.counts = 0, True
        self.beginning: FrozenBeginning | None = None
        self._given: tuple[Tensor | None, int] = (None, 0)
        self.mb_features: Tensor | None = None
        self._around = ExitStack()  # while an experience is trained
        self._make_optimizer = make_optimizer
        placeholder = torch.optim.SGD(
            [nn.Parameter(torch.zeros(1))], lr=1.0
        )  # replaced before the first step
        super().__init__(
            model=model,
            optimizer=placeholder,
            train_mb_size=training.batch_size,
            eval_mb_size=256,
            device=device,
            plugins=list(plugins),
            evaluator=_no_metrics(),
            eval_every=-1,
        )

    @property
    def trainable(self) -> list[nn.Parameter]:
        """Parameters that the current experience trains."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def make_train_dataloader(self, **kwargs) -> None:
        """Batches of this experience from a generator seeded by (seed, position, purpose)."""
        position = self.experience.current_experience
        self.dataloader = TrainingBatches(
            self.experience,
            self.steps,
            self.training_settings.batch_size,
            stable_seed(self.seed, position, "batches"),
            self.device,
        )
        # Dropout draws from the global generator; nothing before this experience may shift it.
        torch.manual_seed(stable_seed(self.seed, position, "dropout"))

    def _before_train_dataset_adaptation(self, **kwargs) -> None:
        # Adapters may take gradients of the experience before their factors stand.
        self.model = self.model.to(self.device)
        how = self.training_settings
        self.model.compute_as(Computing(how.chunk, how.checkpointing, how.compile))
        super()._before_train_dataset_adaptation(**kwargs)

    def check_model_and_optimizer(self, **kwargs) -> None:
        """A fresh optimiser over exactly the trainable parameters."""
        how = self.training_settings
        self.beginning = None  # that of the last experience goes before the next one is made
        self.beginning = FrozenBeginning.of(self.model, self.dataloader) if how.remember else None
        self.skipped = 0
        self.optimizer = self._make_optimizer(self.trainable)
        self._around.close()
        if not any(p.requires_grad for p in self.model.text.parameters()):
            self._around.enter_context(self.model.text.unchanging())
        self._train_aside(True)
        # Gradients of 16-bit floats vanish below 6e-8 unless the loss is scaled; a new scale for every
        # experience.
        self.loss_scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.training_settings.precision == "fp16"
        )

    def _train_aside(self, begins: bool) -> None:
        """A schedule-free optimiser trains at other weights than those that are its result."""
        switch = getattr(self.optimizer, "train" if begins else "eval", None)
        if switch is not None:
            switch()

    def _after_training_epoch(self, **kwargs) -> None:
        self._train_aside(False)  # what follows (merging, Fisher, measuring) sees the result
        super()._after_training_epoch(**kwargs)

    def _unpack_minibatch(self) -> None:
        super()._unpack_minibatch()
        self._given = (self.mb_x, self.mb_x._version)

    def _after_training_exp(self, **kwargs) -> None:
        # Merging and measuring may need the memory.
        self.beginning, self._given, self.mb_features = None, (None, 0), None
        self._around.close()
        super()._after_training_exp(**kwargs)

    def backward(self) -> None:
        """Gradients of the loss, in its own scale again before any plugin sees them."""
        self.loss_scaler.scale(self.loss).backward()
        self.loss_scaler.unscale_(self.optimizer)
        self.counts = not self._leaves_out or self._finite()

    def optimizer_step(self) -> None:
        """One step, left out where 16-bit gradients overflowed, or where ``on_nan: skip`` finds what is no
        number."""
        if self.training_settings.on_nan == "skip" and not self._finite():
            self.counts = False
            self.skipped += 1
            self.loss_scaler.update()
            return
        self.skipped += not self.counts
        self.loss_scaler.step(self.optimizer)
        self.loss_scaler.update()

    @property
    def _leaves_out(self) -> bool:
        return self.training_settings.on_nan == "skip" or self.loss_scaler.is_enabled()

    def _finite(self) -> bool:
        gradients = [p.grad for p in self.trainable if p.grad is not None]
        norms = torch.stack(torch._foreach_norm(gradients)) if gradients else self.loss.new_zeros(1)
        return bool(torch.isfinite(self.loss) & torch.isfinite(norms).all())

    @property
    def spaces(self) -> list[LabelSpace]:
        """Label spaces of the current mini-batch, narrowed to the step's template while training."""
        if not isinstance(self.experience, ClipExperience):
            return [self.model.label_space]
        if not self.is_training:
            return [self.experience.test_space]
        spaces = [self.of_the_step(space) for space in self.experience.spaces]
        return [self.dataloader.drawn.get(place, space) for place, space in enumerate(spaces)]

    def of_the_step(self, space: LabelSpace) -> LabelSpace:
        """A label space with the prompts that a training step reads of it (``training.prompts``)."""
        choice = self.training_settings.prompts
        if choice == "ensemble" or space.templates == 1:
            return space
        return space.with_template(self.dataloader.template % space.templates if choice == "sample" else 0)

    def forward(self) -> Tensor:
        """Logits of the mini-batch over its label spaces."""
        spaces = self.spaces
        # A plugin may have put other images, or more, in place of the batch's.
        given, version = self._given
        remembered = (
            self.beginning if self.is_training and self.mb_x is given and given._version == version else None
        )
        with ExitStack() as around:
            if remembered:
                around.enter_context(remembered.of_images(self.dataloader.chosen))
            for plugin in self.plugins:
                if self.is_training and isinstance(plugin, AdapterPlugin):
                    around.enter_context(plugin.composed(self.model))
            self.mb_features = self.model.image_features(self.mb_x)
            return self.model.answers(self.mb_features, spaces, self.mbatch[2] if len(spaces) > 1 else None)

    def criterion(self) -> Tensor:
        """The training loss of the settings; cross-entropy in an evaluation."""
        if not self.is_training:
            return F.cross_entropy(self.mb_output, self.mb_y)
        counts = self.experience.class_counts
        batch = Answered(
            self.mb_output,
            self.mb_y,
            self.mbatch[2] if len(counts) > 1 else torch.zeros_like(self.mb_y),
            counts,
            self.model.clip.logit_scale.detach().float().exp(),
            self.training_settings.label_smoothing,
        )
        if any(self.experience.captioned):
            of_classes = partial(training_loss, self.training_settings.loss)
            return loss_with_captions(batch, self.experience.captioned, of_classes)
        return training_loss(self.training_settings.loss, batch)

    def _after_training_iteration(self, **kwargs) -> None:
        super()._after_training_iteration(**kwargs)
        for space in self.dataloader.drawn.values():
            self.model.text.drop(space)  # no later step has the same texts
