"""Learning-rate schedule, gradient clipping and the training curves, as plugins of the strategy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from avalanche.training.plugins import SupervisedPlugin
from torch import nn

from ...config.training import Optimiser, Schedule
from ..checkpoint import StepState


def rate(schedule: Schedule, step: int, steps: int) -> float:
    """Factor on the rate at ``step`` (from 0) of ``steps``: linear warm-up, then cosine to its end or
    constant."""
    warm = round(schedule.warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    if schedule.name == "constant":
        return 1.0
    falling = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    return schedule.end + (1 - schedule.end) * falling


class SchedulePlugin(SupervisedPlugin, StepState, supports_distributed=False):
    """Sets the learning rate before every step and clips the gradient norm after every backward pass.

    Avalanche's own scheduler plugin keeps driving the first optimiser object when a strategy makes a new one.
    """

    def __init__(self, schedule: Schedule, optimiser: Optimiser) -> None:
        super().__init__()
        self.schedule, self.optimiser = schedule, optimiser
        self.step = 0

    def before_training_exp(self, strategy, **kwargs) -> None:
        """Every experience has its own schedule."""
        self.step = 0

    def before_training_iteration(self, strategy, **kwargs) -> None:
        """Set the rate of this step."""
        factor = rate(self.schedule, self.step, len(strategy.dataloader))
        for group in strategy.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.step += 1

    def step_state(self) -> dict[str, torch.Tensor]:
        """The step."""
        return {"step": torch.tensor(self.step)}

    def load_step_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """As in the base class."""
        self.step = int(tensors["step"])

    def before_update(self, strategy, **kwargs) -> None:
        """Clip."""
        if self.optimiser.clip_norm is not None:
            nn.utils.clip_grad_norm_(strategy.trainable, self.optimiser.clip_norm)


class AveragePlugin(SupervisedPlugin, StepState, supports_distributed=False):
    """The result of an experience is the mean of the trained parameters over its course (ZSCL's weight
    ensemble).

    Low-rank factors are averaged as factors, which is not the average of their products.

    Args:
        every: steps between two of the averaged states; the state at the start is one of them.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self._step, self._count = 0, 0
        self._mean: list[torch.Tensor] = []

    def before_training_exp(self, strategy, **kwargs) -> None:
        """Begin with the start."""
        self._step, self._count = 0, 1
        self._mean = [p.detach().clone() for p in strategy.trainable]

    @torch.no_grad()
    def after_update(self, strategy, **kwargs) -> None:
        """Take the state into the mean now and then."""
        self._step += 1
        if self._step % self.every == 0:
            self._count += 1
            for mean, p in zip(self._mean, strategy.trainable, strict=True):
                mean += (p - mean) / self._count

    def step_state(self) -> dict[str, torch.Tensor]:
        """The mean so far."""
        counts = {"step": torch.tensor(self._step), "count": torch.tensor(self._count)}
        return counts | {f"mean/{place}": mean for place, mean in enumerate(self._mean)}

    @torch.no_grad()
    def load_step_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """As in the base class."""
        self._step, self._count = int(tensors["step"]), int(tensors["count"])
        for place, mean in enumerate(self._mean):
            mean.copy_(tensors[f"mean/{place}"])

    @torch.no_grad()
    def after_training_epoch(self, strategy, **kwargs) -> None:
        """Put the mean in place; what follows (merging, Fisher) sees it."""
        for mean, p in zip(self._mean, strategy.trainable, strict=True):
            p.copy_(mean)
        self._mean = []


def share_right(
    logits: torch.Tensor, labels: torch.Tensor, of: torch.Tensor, captioned: Sequence[bool]
) -> torch.Tensor:
    """Share of a batch's images that are answered rightly, argmax of an image's logits = its label; NaN where
    no image has classes.

    Images with captions are left out: what they are told from are the texts of their batch alone.

    Args:
        logits: ``(images, classes)``, those of each image within its own label space.
        labels: ``(images,)``.
        of: ``(images,)``, which of the label spaces.
        captioned: which of the label spaces are texts of the batch.
    """
    right = logits.detach().argmax(1) == labels
    if not any(captioned):
        return right.float().mean()
    classed = torch.ones_like(right)
    for place, texts in enumerate(captioned):
        if texts:
            classed &= of != place
    return (right & classed).sum() / classed.sum()


class CurvePlugin(SupervisedPlugin, StepState, supports_distributed=False):
    """Keeps the loss of every step, and the share of its batch that was answered rightly before the step, on
    the device and hands the loss out now and then, since reading it waits for the device.

    Args:
        report: called with (step, loss, images) every ``every`` steps and after the last.
    """

    def __init__(self, report: Callable[[int, float, int], None], every: int = 10) -> None:
        super().__init__()
        self.report, self.every = report, every
        self.losses: list[torch.Tensor] = []
        self.right: list[torch.Tensor] = []
        self.images = 0

    def before_training_exp(self, strategy, **kwargs) -> None:
        """Curves per experience."""
        self.losses, self.right, self.images = [], [], 0

    def after_training_iteration(self, strategy, **kwargs) -> None:
        """Note the loss and what was right."""
        self.losses.append(strategy.loss.detach().reshape(()))
        captioned = strategy.experience.captioned
        self.right.append(share_right(strategy.mb_output, strategy.mb_y, strategy.mbatch[2], captioned))
        self.images += len(strategy.mb_y)
        step = len(self.losses)
        if step % self.every == 0 or step == len(strategy.dataloader):
            self.report(step, float(self.losses[-1]), self.images)

    def step_state(self) -> dict[str, torch.Tensor]:
        """The curves so far."""
        return {
            "losses": torch.tensor(self.curve()),
            "right": torch.tensor(_read(self.right)),
            "images": torch.tensor(self.images),
        }

    def load_step_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """As in the base class."""
        self.losses, self.images = list(tensors["losses"]), int(tensors["images"])
        # Earlier versions saved none: the steps before are not known then.
        self.right = list(tensors.get("right", torch.full_like(tensors["losses"], math.nan)))

    def curve(self) -> list[float]:
        """Loss per step of the last experience."""
        return _read(self.losses)

    def accuracy(self) -> list[float]:
        """Share answered rightly per step of the last experience, NaN where it is not defined; empty where it
        is at none."""
        found = _read(self.right)
        return found if any(map(math.isfinite, found)) else []


def _read(values: Sequence[torch.Tensor]) -> list[float]:
    return torch.stack([value.cpu() for value in values]).tolist() if values else []
