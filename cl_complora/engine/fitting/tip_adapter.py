"""Tip-Adapter and Tip-Adapter-F (Zhang et al., ECCV 2022; gaopengcuhk/Tip-Adapter).

The authors choose the epoch of -F on the test images, and report the better, on them, of the α and β that
its keys were trained with and of those that were searched. Here validation images decide both; where there
are none the last epoch stays and shots that were left out decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...clip.heads.head import Head
from ...clip.heads.key_cache import CacheHead, similarity
from ...config.heads import TipAdapter
from ..constraints import stable_seed
from .cache_search import Asked, best_of, grid, right_answers
from .fitting import Fitted, KeepingFitting, Shots
from .linear_head import shuffled

# The authors' first values on ImageNet and Pets; elsewhere theirs of α are 2 and 5.
ALPHA, BETA = 1.17, 1.0
# Their grids have 200 values of β and 20 of α, with ends set by data set: 7 to 30, and 3 to 30. Here one grid
# stands for all of them: β to their largest end, α in their smallest grid and their largest.
BETAS = grid(30, 200)
ALPHAS = sorted({*grid(3, 20), *grid(30, 20)})
# Where there are no validation images, -F is tried on so many parts of the shots.
FOLDS = 5


@dataclass(frozen=True)
class Cache:
    """Keys of the task that is learned, those of earlier ones before it, and what tells classes apart.

    Attributes:
        names: the K classes so far.
        texts: their unit text features, ``K × D``.
        scale: τ.
        fixed: keys of earlier tasks.
        own: keys of the task, ``n × D``.
        values: one-hot labels of both, ``keys × K``.
    """

    names: tuple[str, ...]
    texts: Tensor
    scale: float
    fixed: Tensor
    own: Tensor
    values: Tensor

    @property
    def keys(self) -> Tensor:
        """All of them, ``keys × D``."""
        return torch.cat([self.fixed, self.own])

    def asked(self, features: Tensor, labels: Tensor) -> Asked:
        """What keys and texts say of images, ``N × D``."""
        return Asked(self.scale * features @ self.texts.mT, features @ self.keys.mT, self.values, labels)

    def with_own(self, own: Tensor, chosen: Tensor | slice = slice(None)) -> Cache:
        """With other keys of the task, or of some of its images alone."""
        before = len(self.fixed)
        values = torch.cat([self.values[:before], self.values[before:][chosen]])
        return Cache(self.names, self.texts, self.scale, self.fixed, own, values)


class TipAdapterFitting(KeepingFitting, supports_distributed=False):
    """Keys are unit means of augmented views; earlier tasks' keys stay where one head is for all.

    α and β are what gets most images right among all classes that have keys: with one head for all tasks,
    those of all tasks so far. Asked are the validation images of all of these, else all their shots, each
    with its own key left out.

    -F trains the task's keys with the authors' first α and β and searches afterwards: on validation images,
    else on each part of the shots beside keys that were trained on the other parts. What is found counts
    where it gets more right than the first values do.
    """

    chooses = True

    def fit(self, shots: Shots, earlier: Head | None) -> Fitted:
        """As in the base class."""
        self.keep(shots)
        settings = self.settings
        # -F sees every image anew in every epoch.
        views = shots.views(settings.views + (settings.epochs if settings.train else 0))
        cache = self._cache(shots, F.normalize(views[: settings.views].mean(0), dim=-1), earlier)
        if not settings.train:
            alpha, beta = self._chosen([self._held(shots, cache)], (ALPHA, BETA))
            return self._fitted(cache, {"alpha": alpha, "beta": beta})
        first = settings.alpha or ALPHA, settings.beta or BETA
        seen = views[settings.views :]
        own, epoch = self._trained(shots, cache, seen, *first)
        trained = cache.with_own(own)
        asked = self._held_validation(shots, trained)
        rounds = [asked] if asked is not None else self._parts(shots, cache, seen, *first)
        alpha, beta = self._chosen(rounds, first, better=True)
        return self._fitted(trained, {"alpha": alpha, "beta": beta, "epoch": epoch})

    def _cache(self, shots: Shots, own: Tensor, earlier: Head | None) -> Cache:
        names, fixed, before = shots.names, own[:0], own.new_empty(0, 0)
        if isinstance(earlier, CacheHead):
            names = earlier.classes + tuple(name for name in names if name not in earlier.classes)
            fixed, before = earlier.keys, earlier.values
        place = torch.tensor([names.index(name) for name in shots.names]).to(shots.labels)
        values = F.one_hot(place[shots.labels], len(names)).to(own)
        if len(fixed):
            values = torch.cat([F.pad(before, (0, len(names) - before.shape[1])), values])
        texts = shots.seen_texts[[shots.seen.index(name) for name in names]]
        return Cache(names, texts, shots.scale, fixed, own, values)

    def _fitted(self, cache: Cache, told: dict[str, float]) -> Fitted:
        keys = cache.keys
        return Fitted(
            CacheHead(cache.names, told["alpha"], told["beta"], keys, cache.values), keys.numel(), told
        )

    def _chosen(
        self, rounds: Iterable[Asked], first: tuple[float, float], better: bool = False
    ) -> tuple[float, float]:
        """α and β that get most images of some rounds right; ``first`` where there is no image, and with
        ``better`` wherever nothing gets more right than it."""
        settings = self.settings
        if settings.alpha is not None and settings.beta is not None:
            return settings.alpha, settings.beta
        rounds = [asked for asked in rounds if len(asked.labels)]
        if not rounds:
            return settings.alpha or first[0], settings.beta or first[1]
        alphas = ALPHAS if settings.alpha is None else [settings.alpha]
        betas = BETAS if settings.beta is None else [settings.beta]
        found, most = best_of(rounds, betas, alphas)
        if better and most <= int(sum(right_answers(asked, first[1:], first[:1]) for asked in rounds)):
            return first
        return found

    def _held(self, shots: Shots, cache: Cache) -> Asked:
        """Validation images, or each shot with its own key left out."""
        asked = self._held_validation(shots, cache)
        return self._left_out(shots, cache) if asked is None else asked

    def _held_validation(self, shots: Shots, cache: Cache) -> Asked | None:
        features, labels = self.held(shots)
        return cache.asked(features, labels) if len(labels) else None

    def _shots(self, shots: Shots) -> tuple[Tensor, Tensor]:
        """Features and labels of the images whose keys the last ones of the cache are."""
        if self.shared:
            return self.kept.features, self.kept.labels
        return shots.features, shots.labels

    def _left_out(self, shots: Shots, cache: Cache) -> Asked:
        """Every shot whose class has other shots, without its own key: its cosine is −∞."""
        features, labels = self._shots(shots)
        asked = cache.asked(features, labels)
        place = torch.arange(len(labels), device=labels.device)
        asked.cosines[place, len(asked.values) - len(labels) + place] = -torch.inf
        return asked.of(others(labels))

    def _parts(self, shots: Shots, cache: Cache, views: Tensor, alpha: float, beta: float) -> Iterator[Asked]:
        """Every part of the shots beside keys that were trained without it; those of earlier tasks, which
        stay as they are, each without its own."""
        features, labels = self._shots(shots)
        folds, count = parts(labels, FOLDS, shots.seed), len(shots.labels)
        before = len(cache.fixed) - (len(labels) - count)  # keys whose shots were not kept
        for fold in range(FOLDS):
            held = (folds == fold) & others(labels)
            if not bool(held.any()):
                continue
            fit = folds[-count:] != fold
            own = cache.own[:0]  # of a task whose few shots are all in this part
            if bool(fit.any()):
                own, _ = self._trained(shots, cache, views, alpha, beta, fit)
            asked = cache.with_own(own, fit).asked(features[held], labels[held])
            place = held.nonzero()[:, 0]
            old = place < len(labels) - count
            asked.cosines[old.nonzero()[:, 0], before + place[old]] = -torch.inf
            yield asked

    def _trained(
        self, shots: Shots, cache: Cache, views: Tensor, alpha: float, beta: float, fit: Tensor | None = None
    ) -> tuple[Tensor, int]:
        """Keys of the task after training, and the epoch they are of.

        Args:
            shots, cache: of the task.
            views: of every epoch, ``epochs × n × D``.
            alpha, beta: α and β.
            fit: whether each of the n images is trained on, in which case the last epoch stays; all are, and
                validation images choose the epoch, where that is None.
        """
        chosen = torch.ones_like(shots.labels, dtype=torch.bool) if fit is None else fit
        cache, labels = cache.with_own(cache.own[chosen], chosen), shots.labels[chosen]
        contrasted, _ = shots.contrasted(self.settings.classes)
        columns = [place for place, name in enumerate(cache.names) if name in contrasted]
        among = [cache.names[place] for place in columns]
        place = torch.tensor([among.index(name) for name in shots.names]).to(labels)
        held = None if fit is not None else self.held(shots)

        def right(own: Tensor) -> float | None:
            if held is None or not len(held[1]):
                return None
            asked = cache.with_own(own).asked(*held)
            return float(right_answers(asked, [beta], [alpha]))

        def logits(own: Tensor, features: Tensor) -> Tensor:
            similar = similarity(features, torch.cat([cache.fixed, own]), beta) @ cache.values[:, columns]
            return cache.scale * features @ cache.texts[columns].mT + alpha * similar

        seen = views[:, chosen]
        return trained_keys(cache.own, seen, place[labels], logits, right, self.settings, shots.seed)


def trained_keys(
    start: Tensor,
    views: Tensor,
    labels: Tensor,
    logits: Callable[[Tensor, Tensor], Tensor],
    right: Callable[[Tensor], float | None],
    settings: TipAdapter,
    seed: int,
) -> tuple[Tensor, int]:
    """Keys after the epoch that gets most right, the first of equals, or after the last; and which it is.

    Args:
        start: ``n × D``.
        views: unit features of the images in every epoch, ``epochs × n × D``.
        labels: ``(n,)``.
        logits: of keys and features.
        right: how much keys get right; None where nothing can say.
        settings: ``lr``, ``epochs`` and ``batch_size``.
        seed: of the order of the images.
    """
    own, count = start.detach().clone().requires_grad_(), len(labels)
    per_epoch = -(-count // min(settings.batch_size, count))
    optimiser = torch.optim.AdamW([own], lr=settings.lr, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs * per_epoch)
    batches = shuffled(count, settings.batch_size, settings.epochs * per_epoch, seed)
    best, kept = -1.0, (own.detach().clone(), settings.epochs)
    for epoch in range(settings.epochs):
        for _ in range(per_epoch):
            chosen = next(batches).to(views.device)
            with torch.enable_grad():
                loss = F.cross_entropy(logits(own, views[epoch][chosen]), labels[chosen])
                optimiser.zero_grad()
                loss.backward()
            optimiser.step()
            schedule.step()
        now = own.detach().clone()
        found = right(now)
        if found is None or found > best:
            best, kept = found or 0.0, (now, epoch + 1)
    return kept


def others(labels: Tensor) -> Tensor:
    """Whether each image has another one of its class, ``(N,)``: without one no key could answer for it."""
    return labels.bincount()[labels] > 1


def parts(labels: Tensor, count: int, seed: int) -> Tensor:
    """Number of the part that each image is drawn into, ``(N,)``; a class's images are spread evenly."""
    generator = torch.Generator().manual_seed(stable_seed(seed, "parts"))
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    found = torch.empty_like(labels)
    for label in labels.unique():
        own = order[labels[order] == label]
        found[own] = torch.arange(len(own), device=labels.device) % count
    return found
