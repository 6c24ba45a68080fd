"""RAda (Rational adaptation of CLIP, ICCV 2025): six projections trained on frozen features."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ...clip.heads.head import Head
from ...clip.heads.mask import PARTS, MaskHead, masked
from .fitting import Fitted, HeadFitting, Shots
from .linear_head import shuffled

# The authors' first epoch, before the cosine begins.
FIRST_RATE = 1e-5


class RAdaFitting(HeadFitting, supports_distributed=False):
    """min CE + penalty · mean max |mask − 1|; the mask begins as 1 everywhere, so the logits as zero-shot.

    Where one head is for all tasks it is trained on from task to task, and may forget.
    """

    def fit(self, shots: Shots, earlier: Head | None) -> Fitted:
        """As in the base class."""
        settings, width = self.settings, shots.features.shape[1]
        heads = math.gcd(settings.heads, width)
        begun = earlier.tensors() if isinstance(earlier, MaskHead) else started(width, shots.seed)
        weights = {name: value.to(shots.features).clone().requires_grad_() for name, value in begun.items()}
        contrasted, texts = shots.contrasted(settings.classes)
        place = torch.tensor([contrasted.index(name) for name in shots.names]).to(shots.labels)
        labels, count = place[shots.labels], len(shots.labels)
        optimiser = torch.optim.Adam(weights.values(), lr=settings.lr, weight_decay=settings.weight_decay)
        per_epoch = -(-count // min(settings.batch_size, count))
        batches = shuffled(count, settings.batch_size, settings.epochs * per_epoch, shots.seed)
        for rate in rates(settings.lr, settings.epochs):
            optimiser.param_groups[0]["lr"] = rate
            for _ in range(per_epoch):
                chosen = next(batches).to(labels.device)
                with torch.enable_grad():
                    asked = shots.features[chosen], texts, shots.scale
                    mask, logits = masked(weights, *asked, heads, settings.temperature)
                    loss = loss_of(mask, logits, labels[chosen], settings.penalty)
                    optimiser.zero_grad()
                    loss.backward()
                optimiser.step()
        before = earlier.classes if earlier is not None else ()
        names = before + tuple(name for name in shots.names if name not in before)
        trained = {name: value.detach() for name, value in weights.items()}
        head = MaskHead(names, float(heads), settings.temperature, **trained)
        return Fitted(head, sum(value.numel() for value in trained.values()))


def started(width: int, seed: int) -> dict[str, Tensor]:
    """Projections as ``nn.Linear`` draws them; the last is zero."""
    generator = torch.Generator().manual_seed(seed)
    bound = width**-0.5
    drawn = {name: (torch.rand(width, width + 1, generator=generator) * 2 - 1) * bound for name in PARTS}
    return drawn | {"out": torch.zeros(width, width + 1)}


def rates(lr: float, epochs: int) -> Iterator[float]:
    """Of every epoch: a first small one, then a cosine that begins at the whole rate and would reach zero
    with the epoch after the last, were there no first one."""
    if epochs == 1:
        yield lr
        return
    yield min(lr, FIRST_RATE)
    for epoch in range(epochs - 1):
        yield lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def loss_of(mask: Tensor, logits: Tensor, labels: Tensor, penalty: float) -> Tensor:
    """CE + penalty · mean over images of max |mask − 1|."""
    loss = F.cross_entropy(logits, labels)
    return loss + penalty * (mask - 1).abs().flatten(1).amax(1).mean() if penalty else loss
