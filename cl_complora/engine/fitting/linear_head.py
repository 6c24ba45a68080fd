"""Rows trained by gradient on frozen features: stage 2 of 2SFS (Farina et al., CVPR 2025) where they start
from texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ...clip.heads.head import Head
from ...clip.heads.linear import RowHead
from .fitting import Fitted, HeadFitting, Shots

LAST_RATE = 1e-6


class LinearHeadFitting(HeadFitting, supports_distributed=False):
    """min CE(τ f·normalise(W)ᵀ) over the rows of the task's classes, AdamW with a cosine to 1e-6.

    Where one head is for all tasks, rows of earlier classes stay as they are (contrasted with, unless
    ``classes: task``), and a class that comes again goes on from its row.
    """

    def fit(self, shots: Shots, earlier: Head | None) -> Fitted:
        """As in the base class."""
        settings = self.settings
        start = self._start(shots)
        others = torch.empty(0, start.shape[1], device=start.device)
        contrasted = others
        names: tuple[str, ...] = ()
        if isinstance(earlier, RowHead):
            again = earlier.known(shots.names)
            start[again] = earlier.weight[earlier.rows(shots.names)]
            kept = [row for row, name in enumerate(earlier.classes) if name not in shots.names]
            others, names = earlier.weight[kept], tuple(earlier.classes[row] for row in kept)
            told_apart, _ = shots.contrasted(settings.classes)
            contrasted = others[[place for place, name in enumerate(names) if name in told_apart]]
        steps = settings.steps_per_shot * shots.shots
        batches = shuffled(len(shots.labels), settings.batch_size, steps, shots.seed)
        row = trained_rows(
            start,
            contrasted,
            shots.features,
            shots.labels,
            shots.scale,
            batches,
            settings.lr,
            settings.weight_decay,
            steps,
        )
        head = RowHead(names + shots.names, torch.cat([others, row]))
        return Fitted(head, row.numel(), {"steps": steps})

    def _start(self, shots: Shots) -> Tensor:
        return _STARTS[self.settings.start](shots)


def _random(shots: Shots) -> Tensor:
    drawn = torch.randn(shots.texts.shape, generator=torch.Generator().manual_seed(shots.seed))
    return F.normalize(drawn, dim=-1).to(shots.texts)


_STARTS: dict[str, Callable[[Shots], Tensor]] = {"text": lambda shots: shots.texts.clone(), "random": _random}


def shuffled(count: int, batch_size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Places of every step's images; every image comes once before any comes again."""
    generator = torch.Generator().manual_seed(seed)
    size, order = min(batch_size, count), torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(order) < size:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:size]
        order = order[size:]


def trained_rows(
    start: Tensor,
    others: Tensor,
    features: Tensor,
    labels: Tensor,
    scale: float,
    batches: Iterator[Tensor],
    lr: float,
    weight_decay: float,
    steps: int,
    told: list[float] | None = None,
) -> Tensor:
    """Rows of the classes after training.

    Args:
        start: ``K × D`` rows.
        others: rows of other classes that are contrasted with and not trained.
        features, labels: ``N × D`` unit features, labels among ``start``.
        scale: τ.
        batches: places of the images of every step.
        lr, weight_decay, steps: of AdamW and its cosine.
        told: given the loss of every step.
    """
    rows = start.detach().clone().requires_grad_()
    optimiser = torch.optim.AdamW([rows], lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=min(lr, LAST_RATE))
    fixed = F.normalize(others, dim=-1)
    with torch.enable_grad():
        for chosen in batches:
            chosen = chosen.to(features.device)
            unit = torch.cat([F.normalize(rows, dim=-1), fixed])
            loss = F.cross_entropy(scale * features[chosen] @ unit.mT, labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if told is not None:
                told.append(float(loss.detach()))
    return rows.detach()
