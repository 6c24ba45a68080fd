"""Tip-Adapter and Tip-Adapter-F (Zhang et al., ECCV 2022).

The authors choose α, β and the epoch of -F on the test images; here validation images decide, and where there
are none each shot is held against the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ...clip.heads.head import Head
from ...clip.heads.key_cache import CacheHead, similarity
from .fitting import Fitted, HeadFitting, Shots
from .linear_head import shuffled

# The authors' first values; their grids end between 3 and 13, set by data set, ours is one for all.
ALPHA, BETA = 1.17, 1.0
MOST_ALPHA, MOST_BETA = 50.0, 7.0
ALPHAS, BETAS = 20, 50


class TipAdapterFitting(HeadFitting, supports_distributed=False):
    """Keys are unit means of augmented views; earlier tasks' keys stay where one head is for all."""

    def fit(self, shots: Shots, earlier: Head | None) -> Fitted:
        """As in the base class."""
        settings = self.settings
        views = shots.views(settings.views)
        keys, labels = F.normalize(views.mean(0), dim=-1), shots.labels
        old = earlier if isinstance(earlier, CacheHead) else None
        names = shots.names if old is None else old.classes
        names += tuple(name for name in shots.names if name not in names)
        values = F.one_hot(torch.tensor([names.index(n) for n in shots.names]).to(labels)[labels], len(names))
        values = values.to(keys)
        if old is not None:
            keys = torch.cat([old.keys, keys])
            values = torch.cat([F.pad(old.values, (0, len(names) - old.values.shape[1])), values])
        held = _HeldOut.of(shots, keys, len(labels), values, names)
        alpha, beta = self._chosen(held)
        told = {"alpha": alpha, "beta": beta}
        if settings.train:
            keys, told["epoch"] = self._trained(shots, views, keys, values, names, alpha, beta)
        return Fitted(CacheHead(names, alpha, beta, keys, values), keys.numel(), told)

    def _chosen(self, held: _HeldOut) -> tuple[float, float]:
        settings = self.settings
        if settings.alpha is not None and settings.beta is not None:
            return settings.alpha, settings.beta
        alphas = grid(MOST_ALPHA, ALPHAS) if settings.alpha is None else [settings.alpha]
        betas = grid(MOST_BETA, BETAS) if settings.beta is None else [settings.beta]
        return searched(held.text_logits, held.cosines, held.values, held.labels, betas, alphas)

    def _trained(
        self,
        shots: Shots,
        views: Tensor,
        keys: Tensor,
        values: Tensor,
        names: tuple[str, ...],
        alpha: float,
        beta: float,
    ) -> tuple[Tensor, int]:
        """Keys of the task after training, those of earlier tasks as they were, and the epoch they are of."""
        settings, count = self.settings, len(shots.labels)
        fixed, own = keys[:-count], keys[-count:].detach().clone().requires_grad_()
        columns = [names.index(name) for name in shots.names]
        per_epoch = -(-count // min(settings.batch_size, count))
        optimiser = torch.optim.AdamW([own], lr=settings.lr, eps=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs * per_epoch)
        batches = shuffled(count, settings.batch_size, settings.epochs * per_epoch, shots.seed)
        best, kept = -1.0, (own.detach().clone(), settings.epochs)
        for epoch in range(settings.epochs):
            seen = views[epoch % len(views)]
            for _ in range(per_epoch):
                chosen = next(batches).to(seen.device)
                with torch.enable_grad():
                    similar = similarity(seen[chosen], torch.cat([fixed, own]), beta) @ values[:, columns]
                    logits = shots.scale * seen[chosen] @ shots.texts.mT + alpha * similar
                    loss = F.cross_entropy(logits, shots.labels[chosen])
                    optimiser.zero_grad()
                    loss.backward()
                optimiser.step()
                schedule.step()
            now = own.detach().clone()
            right = self._right(shots, torch.cat([fixed, now]), values[:, columns], alpha, beta)
            if right is None or right > best:
                best, kept = right or 0.0, (now, epoch + 1)
        return torch.cat([fixed, kept[0]]), kept[1]

    def _right(self, shots: Shots, keys: Tensor, values: Tensor, alpha: float, beta: float) -> float | None:
        """Share of the validation images that are right; None where there are none."""
        features, labels = shots.validation_features, shots.validation_labels
        if not len(labels):
            return None
        logits = shots.scale * features @ shots.texts.mT + alpha * similarity(features, keys, beta) @ values
        return float((logits.argmax(1) == labels).double().mean())


class _HeldOut:
    """What α and β are chosen on: validation images, or each shot with its own key left out.

    Attributes:
        text_logits: ``N × K`` over the task's classes.
        cosines: ``N × keys``; −∞ of a shot with its own key.
        values: ``keys × K``.
        labels: ``(N,)``.
    """

    def __init__(self, text_logits: Tensor, cosines: Tensor, values: Tensor, labels: Tensor) -> None:
        self.text_logits, self.cosines, self.values, self.labels = text_logits, cosines, values, labels

    @classmethod
    def of(cls, shots: Shots, keys: Tensor, own: int, values: Tensor, names: tuple[str, ...]) -> _HeldOut:
        values = values[:, [names.index(name) for name in shots.names]]
        given = len(shots.validation_labels) > 0
        features = shots.validation_features if given else shots.features
        cosines = features @ keys.mT
        if not given:
            place = torch.arange(own, device=keys.device)
            cosines[place, len(keys) - own + place] = -torch.inf
        labels = shots.validation_labels if given else shots.labels
        return cls(shots.scale * features @ shots.texts.mT, cosines, values, labels)


def grid(most: float, steps: int) -> list[float]:
    """The authors' values from .1 on: i (most − .1)/steps + .1."""
    return [i * (most - 0.1) / steps + 0.1 for i in range(steps)]


def searched(
    text_logits: Tensor,
    cosines: Tensor,
    values: Tensor,
    labels: Tensor,
    betas: Sequence[float],
    alphas: Sequence[float],
) -> tuple[float, float]:
    """(α, β) with most images right; the first of equals, β in the outer loop as in the authors' search.

    Args:
        text_logits: ``N × K``.
        cosines: ``N × keys``, of images with keys.
        values: ``keys × K``.
        labels: ``(N,)``.
        betas, alphas: what to try.
    """
    best, found = -1, (ALPHA, BETA)
    for beta in betas:
        cached = (-beta * (1 - cosines)).exp() @ values
        for alpha in alphas:
            right = int(((text_logits + alpha * cached).argmax(1) == labels).sum())
            if right > best:
                best, found = right, (float(alpha), float(beta))
    return found
