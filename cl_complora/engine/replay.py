"""Replay: images of earlier tasks, each classified in its own label space, trained on beside the current
task."""

from __future__ import annotations

import torch
from avalanche.training.storage_policy import ClassBalancedBuffer, ReservoirSamplingBuffer
from torch import Tensor

from ..config.strategy import Memory
from ..data.images.pixels import augment
from ..data.tasks import TaskData
from .constraints import stable_seed
from .experience import as_avalanche, contrasted_with
from .own_draws import OwnDraws
from .task_state import CarryingPlugin
from .training.training_loss import Answered, training_loss

_POLICIES = {
    "class-balanced": lambda size: ClassBalancedBuffer(size, adaptive_size=True),
    "reservoir": lambda size: ReservoirSamplingBuffer(size),
}


class ReplayPlugin(OwnDraws, CarryingPlugin, supports_distributed=False):
    """Adds the loss of a batch drawn from stored images to every step after the first experience.

    What to keep is chosen by one of Avalanche's storage policies, one buffer per task because labels are
    local to a task. Only the indices of the kept images are state: the images themselves come from the
    scenario.

    Args:
        settings: size of the memory and of its batches.
        seed: of the choice and the draws.
    """

    purpose = "replay"
    needs_classes = "keeps images of every class and replays them with their class texts"

    def __init__(self, settings: Memory, seed: int) -> None:
        super().__init__(seed)
        self.settings = settings
        self.kept: list[tuple[TaskData, Tensor]] = []

    def before_backward(self, strategy, **kwargs) -> None:
        """loss += weight · the training loss of a memory batch; what is counted are the images kept."""
        if not self.kept:
            return
        owner = torch.cat([torch.full((len(indices),), i) for i, (_, indices) in enumerate(self.kept)])
        place = torch.cat([indices for _, indices in self.kept])
        drawn = torch.randint(len(place), (self.settings.batch_size,), generator=self.generator)
        owner, place = owner[drawn], place[drawn]
        # Tasks that share a label space compete in one, as those of a batch do.
        of_task = [contrasted_with(task, strategy.experience.parts[-1]) for task, _ in self.kept]
        images, labels, different, ids = [], [], [], []
        for index in owner.unique().tolist():
            task, members = self.kept[index][0], place[owner == index]
            how = task.augment
            images.append(augment(task.train.pixels[members], tuple(how.crop), how.flip, self.generator))
            labels.append(task.train.labels[members])
            if of_task[index] not in different:
                different.append(of_task[index])
            ids.append(torch.full((len(members),), different.index(of_task[index])))
        counts = [torch.zeros(len(space), dtype=torch.long) for space in different]
        for space, (task, kept) in zip(of_task, self.kept, strict=True):
            if space in different:
                counts[different.index(space)] += torch.bincount(
                    task.train.labels[kept], minlength=len(space)
                )
        spaces = [strategy.of_the_step(space) for space in different]
        device = strategy.device
        logits = strategy.model(torch.cat(images).to(device), spaces, torch.cat(ids).to(device))
        batch = Answered(
            logits,
            torch.cat(labels).to(device),
            torch.cat(ids).to(device),
            counts,
            strategy.model.clip.logit_scale.detach().float().exp(),
            smoothing=strategy.training_settings.label_smoothing,
        )
        loss = training_loss(strategy.training_settings.loss.of_memory, batch)
        strategy.loss = strategy.loss + self.settings.weight * loss

    def after_training_exp(self, strategy, **kwargs) -> None:
        """Choose what to keep of this experience."""
        for task in strategy.experience.parts:
            self.remember(task)

    def remember(self, task: TaskData) -> None:
        """Keep ``per_class`` images of every class of a task; a function of (seed, task) alone."""
        if any(known.index == task.index for known, _ in self.kept):
            return  # a stream that trains earlier tasks again
        state = torch.random.get_rng_state()
        try:
            # The reservoir draws its random keys from torch's global generator.
            torch.manual_seed(stable_seed(self.seed, task.index, "memory"))
            classes = len(task.train.labels.unique())
            buffer = _POLICIES[self.settings.policy](self.settings.per_class * classes)
            indices = as_avalanche(type(task.train)(torch.arange(len(task.train)), task.train.labels))
            buffer.update_from_dataset(indices)
            self.kept.append((task, torch.tensor(sorted(int(index) for index, *_ in buffer.buffer))))
        finally:
            torch.random.set_rng_state(state)
