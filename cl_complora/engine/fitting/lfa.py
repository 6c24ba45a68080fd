"""LFA (Ouali et al., Black box few-shot adaptation for vision-language models, ICCV 2023).

A linear map of the unit image features onto their classes' texts. Cosines do not see the length of a feature,
so the map folds exactly into the image tower's projection: an ordinary update of one parameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ...clip.classifier import ClipClassifier
from ...clip.heads.head import Head
from ...clip.projection import image_projection
from ...config.heads import Lfa
from ...data.tasks import TaskData
from ...delta import TaskDelta
from ..adapter import clip_of
from .fitting import Fitted, HeadFitting, Shots, shots_of

LAST_RATE = 1e-7
# Part of the images of every step.
SHARE = 0.75
BETAS = 25
SPLITS = 3
# Where there are too few shots to hold any out.
USUAL_BETA = 0.9
# Of a step towards an orthogonal map.
PULL = 0.01


class LfaFitting(HeadFitting, supports_distributed=False):
    """Procrustes' map, mixed with the identity, refined by gradient, and folded into the weights."""

    def fits(self, model: ClipClassifier) -> None:
        """The image tower must end in a linear map."""
        image_projection(clip_of(model))

    def learn(self, model: ClipClassifier, task: TaskData) -> Fitted:
        """As in the base class; what is left is a change of the image projection."""
        fitted = self.fit(shots_of(model, task, self.seed), None)
        return Fitted(None, fitted.trained, fitted.told, folded(model, fitted.delta.dense[_MAP]))

    def fit(self, shots: Shots, earlier: Head | None) -> Fitted:
        """The map alone, ``D × D`` for row vectors."""
        settings, labels = self.settings, shots.labels
        images, texts = shots.features.double(), shots.texts.double()
        generator = torch.Generator().manual_seed(shots.seed)
        beta = settings.beta
        if beta is None:
            beta = searched_beta(images, texts, labels, settings.completion, generator)
        start = mixed(procrustes(images, texts[labels], settings.completion), beta)
        # As in the authors' program the start sees whole images alone, whatever the steps see.
        views = shots.views(settings.crops).double() if settings.crops and settings.steps else None
        refined, mean = refine(start, images, texts, labels, settings, generator, views)
        chosen = mean if settings.map == "ema" and settings.steps else refined
        return Fitted(None, chosen.numel(), {"beta": beta}, TaskDelta(dense={_MAP: chosen}))


_MAP = "map"


@torch.no_grad()
def folded(model: ClipClassifier, linear: Tensor) -> TaskDelta:
    """What the image projection changes by, so that features are ``normalise(f W)``."""
    clip = clip_of(model)
    parameters = dict(clip.named_parameters())
    changes = {}
    for name, rows_are_out in image_projection(clip).items():
        exact = parameters[name].detach().double()
        square = linear.to(exact)
        new = square.mT @ exact if rows_are_out and exact.ndim == 2 else exact @ square
        changes[name] = (new - exact).to(parameters[name].dtype)
    return TaskDelta(dense=changes)


def procrustes(images: Tensor, texts: Tensor, completion: str = "identity") -> Tensor:
    """Orthogonal W of largest Σ⟨x W, y⟩, ``D × D``.

    With fewer classes than dimensions XᵀY determines it on a part of the directions alone. The decomposition
    then fills in any rotation of the rest, another one after rounding; ``identity`` takes the one nearest to
    no rotation: U_rV_rᵀ + U₀ polar(U₀ᵀV₀) V₀ᵀ.

    Args:
        images, texts: ``N × D`` unit features X and, of each image's class, Y.
        completion: ``identity`` or ``svd``.
    """
    u, s, vt = torch.linalg.svd(images.mT @ texts)
    if completion == "svd":
        return u @ vt
    rank = int((s > s[0] * len(s) * torch.finfo(s.dtype).eps * 10).sum())
    u0, v0 = u[:, rank:], vt[rank:].mT
    left, _, right = torch.linalg.svd(u0.mT @ v0)
    return u[:, :rank] @ vt[:rank] + u0 @ (left @ right) @ v0.mT


def mixed(linear: Tensor, beta: float) -> Tensor:
    """(1 − β) W + β I."""
    return (1 - beta) * linear + beta * torch.eye(len(linear), dtype=linear.dtype, device=linear.device)


def searched_beta(
    images: Tensor, texts: Tensor, labels: Tensor, completion: str, generator: torch.Generator
) -> float:
    """The β with most held-out images right, the smallest of equals.

    Each of 25 values is tried on the same three random splits, four fifths to one (the authors draw others
    for every value).
    """
    held = len(labels) // 5
    if not held:
        return USUAL_BETA
    betas = [i / (BETAS - 1) for i in range(BETAS)]
    right = [0] * BETAS
    for _ in range(SPLITS):
        order = torch.randperm(len(labels), generator=generator).to(labels.device)
        fit, rest = order[held:], order[:held]
        linear = procrustes(images[fit], texts[labels[fit]], completion)
        for place, beta in enumerate(betas):
            found = F.normalize(images[rest] @ mixed(linear, beta), dim=-1) @ texts.mT
            right[place] += int((found.argmax(1) == labels[rest]).sum())
    return betas[right.index(max(right))]


def ranking_loss(mapped: Tensor, texts: Tensor, labels: Tensor, neighbours: int, scale: float) -> Tensor:
    """Mean over images and their nearest classes c of max(0, d_y + (1 − ⟨t_c, t_y⟩)/scale − d_c).

    Args:
        mapped: ``N × D`` images after the map.
        texts: ``K × D`` unit texts.
        labels: ``(N,)``.
        neighbours: classes c of every image, at most K; its own, where it is among them, adds 0.
        scale: of the margin.
    """
    unit = F.normalize(mapped, dim=-1)
    # The root of an exact zero, of an image that equals a text, would have no finite gradient.
    distances = (2 - 2 * unit @ texts.mT).clamp_min(1e-12).sqrt()
    near = distances.topk(min(neighbours, len(texts)), largest=False).indices
    margins = ((1 - texts @ texts.mT) / scale)[labels[:, None], near]
    wanted = distances.gather(1, labels[:, None]) + margins - distances.gather(1, near)
    return wanted.clamp_min(0).masked_fill(near == labels[:, None], 0.0).mean()


def refine(
    start: Tensor,
    images: Tensor,
    texts: Tensor,
    labels: Tensor,
    settings: Lfa,
    generator: torch.Generator,
    views: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The map after AdamW on :func:`ranking_loss`, and its running mean, which begins as the identity.

    Args:
        start: ``D × D``.
        images, texts, labels: ``N × D``, ``K × D`` and ``(N,)``.
        settings: of the strategy.
        generator: of what is drawn.
        views: ``crops × N × D`` unit features of augmented images, one of which every step takes of each.
    """
    linear = start.clone().requires_grad_()
    mean = torch.eye(len(start), dtype=start.dtype, device=start.device)
    steps, count = settings.steps, len(labels)
    if not steps:
        return start, mean
    optimiser = torch.optim.AdamW([linear], lr=settings.lr, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, min(settings.lr, LAST_RATE))
    size = max(1, round(SHARE * count))
    for step in range(steps):
        seen, own = images, labels
        if views is not None:
            crop = torch.randint(len(views), (count,), generator=generator).to(labels.device)
            seen = views[crop, torch.arange(count, device=labels.device)]
            seen = _disturbed(seen, settings, generator)
        elif settings.noise > 0 or settings.dropout > 0:
            chosen = torch.randperm(count, generator=generator)[:size].to(labels.device)
            seen, own = _disturbed(images[chosen], settings, generator), labels[chosen]
        with torch.enable_grad():
            loss = ranking_loss(seen @ linear, texts, own, settings.neighbours, settings.scale)
            optimiser.zero_grad()
            loss.backward()
        optimiser.step()
        linear.data = _CONSTRAINTS[settings.constraint](linear.data)
        schedule.step()
        share = momentum(step, steps)
        mean = share * mean + (1 - share) * linear.detach()
    return linear.detach(), mean


def _nearer_to_orthogonal(linear: Tensor) -> Tensor:
    """1.01 W − .01 W Wᵀ W."""
    return (1 + PULL) * linear - PULL * linear @ linear.mT @ linear


def _contracting(linear: Tensor) -> Tensor:
    """W with no singular value above 1."""
    u, s, vt = torch.linalg.svd(linear)
    return u * s.clamp(max=1.0) @ vt


_CONSTRAINTS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda linear: linear,
    "orthogonal": _nearer_to_orthogonal,
    "spectral": _contracting,
}


def momentum(step: int, steps: int) -> float:
    """μ_t = .9 + .1 (1 − exp(−5 min(t, h)/h)), h = steps // 2."""
    half = max(1, steps // 2)
    return 0.9 + 0.1 * (1 - math.exp(-5 * min(step, half) / half))


def _disturbed(images: Tensor, settings: Lfa, generator: torch.Generator) -> Tensor:
    """Features with noise at half of the steps, and with some left out at half of them."""
    noise, drop = (torch.rand(2, generator=generator) < 0.5).tolist()
    drawn = torch.randn(images.shape, generator=generator, dtype=torch.float64).to(images)
    kept = torch.rand(images.shape, generator=generator).to(images.device) >= settings.dropout
    if noise:
        images = images + settings.noise * drawn
    return images * kept / (1 - settings.dropout) if drop else images
