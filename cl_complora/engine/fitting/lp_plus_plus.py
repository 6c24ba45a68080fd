"""LP++ (Huang et al., LP++: a surprisingly strong linear probe for few-shot CLIP, CVPR 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...clip.heads.head import Head
from ...clip.heads.linear import AffineHead
from ..constraints import stable_seed
from .fitting import Fitted, FittingToAll, Shots

# The authors' start of α: so many times the mean cosine of images with their own class's text.
ALPHA = 250.0


@dataclass
class Blended:
    """Logits f Wᵀ + b + α_k f·t_k.

    Attributes:
        weight: W, ``K × D``.
        bias: ``(K,)``.
        alpha: what the text of every class counts, ``(K,)``.
    """

    weight: Tensor
    bias: Tensor
    alpha: Tensor

    def logits(self, features: Tensor, texts: Tensor) -> Tensor:
        """``N × K`` from unit features ``N × D`` and texts ``K × D``."""
        return F.linear(features, self.weight, self.bias) + self.alpha * (features @ texts.mT)

    def copy(self) -> Blended:
        """The same numbers, detached."""
        return Blended(*(part.detach().clone() for part in (self.weight, self.bias, self.alpha)))

    def folded(self, texts: Tensor) -> Tensor:
        """W + diag(α) T, ``K × D``: one linear map with the same logits."""
        return self.weight + self.alpha[:, None] * texts


class LpPlusPlusFitting(FittingToAll, supports_distributed=False):
    """min CE(f Wᵀ + b + α_k f·t_k) over W, b and α, all shots at every step, at rates that follow from them.

    The epoch with most validation images right stays, the latest of equals; the last one where there are no
    validation images. Where the label space is one, they are those of all tasks so far, and the texts are
    kept beside the features of all shots.
    """

    chooses = True

    def __init__(self, settings, seed: int, shared: bool) -> None:
        super().__init__(settings, seed, shared)
        self._texts: dict[str, Tensor] = {}

    def fit(self, shots: Shots, earlier: Head | None) -> Fitted:
        """As in the base class."""
        if not self.shared:
            self._texts.clear()
        self._texts |= dict(zip(shots.names, shots.texts, strict=True))
        return super().fit(shots, earlier)

    def fit_to(self, names: tuple[str, ...], features: Tensor, labels: Tensor, shots: Shots) -> Fitted:
        """As in the base class."""
        texts = torch.stack([self._texts[name].to(features) for name in names]).double()
        exact = features.double()
        generator = torch.Generator().manual_seed(stable_seed(shots.seed, "bias"))
        bias = (torch.rand(len(names), generator=generator, dtype=torch.float64) * 2 - 1) / exact.shape[
            1
        ] ** 0.5
        held_features, held_labels = self.held(shots)
        held = held_features.double(), held_labels
        start = begun(exact, texts, labels, bias.to(exact))
        settings = self.settings
        found, epoch = trained(start, exact, texts, labels, settings.epochs, settings.alpha_every, held)
        head = AffineHead(names, 1.0, found.folded(texts).float(), found.bias.float())
        return Fitted(head, found.weight.numel() + 2 * len(names), {"epoch": epoch})

    def tensors(self) -> dict[str, Tensor]:
        """As in the base class."""
        if not self.shared:
            return {}
        return super().tensors() | {"texts": torch.stack([self._texts[name] for name in self.kept.names])}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """As in the base class."""
        super().load(tensors)
        if self.shared:
            self._texts = dict(zip(self.kept.names, tensors["texts"], strict=True))


def begun(features: Tensor, texts: Tensor, labels: Tensor, bias: Tensor) -> Blended:
    """Where LP++ begins: W the class *sums* of the features, α_k = 250 · mean over the classes of the mean
    cosine of their images with their own text.

    Args:
        features: ``N × D`` unit features.
        texts: ``K × D`` unit texts.
        labels: ``(N,)``.
        bias: ``(K,)``, as it was drawn.
    """
    classes = F.one_hot(labels, len(texts)).to(features)
    there = classes.sum(0).clamp_min(1)
    own = (features * texts[labels]).sum(1)
    means = (classes.mT @ own / there)[classes.sum(0) > 0]
    return Blended(classes.mT @ features, bias, (ALPHA * means.mean()).expand(len(texts)).clone())


def rates(features: Tensor, texts: Tensor) -> tuple[float, float]:
    """Steps of W and of α: 4N / λ_max(FᵀF) and N / (4 max_k Σ_i (f_i·t_k)²)."""
    count = len(features)
    largest = float(torch.linalg.matrix_norm(features, 2)) ** 2
    steepest = float((features @ texts.mT).square().sum(0).max())
    return 4 * count / largest, count / max(4 * steepest, 1e-12)


def trained(
    start: Blended,
    features: Tensor,
    texts: Tensor,
    labels: Tensor,
    epochs: int,
    alpha_every: int,
    held: tuple[Tensor, Tensor],
    told: list[float] | None = None,
) -> tuple[Blended, int]:
    """LP++ after its epochs, and the epoch that it is of.

    W and b take a step with momentum .9 every epoch. α takes one every ``alpha_every`` epochs, and as in the
    authors' program nothing ever clears its gradient: it moves by the sum of all gradients so far.

    Args:
        start: from :func:`begun`.
        features, texts, labels: ``N × D``, ``K × D`` and ``(N,)``.
        epochs: each is one step on all images.
        alpha_every: epochs between two steps of α.
        held: unit features and labels that choose the epoch; may be none.
        told: given the loss of every epoch.
    """
    rate, alpha_rate = rates(features, texts)
    now, kept, best, chosen = start.copy(), start, -1, epochs
    weight, bias, alpha = (part.requires_grad_() for part in (now.weight, now.bias, now.alpha))
    optimiser = torch.optim.SGD([weight, bias], lr=rate, momentum=0.9)
    for epoch in range(1, epochs + 1):
        with torch.enable_grad():
            loss = F.cross_entropy(now.logits(features, texts), labels)
            optimiser.zero_grad()
            loss.backward()
        optimiser.step()
        if epoch % alpha_every == 0:
            alpha.data -= alpha_rate * alpha.grad
        if told is not None:
            told.append(float(loss.detach()))
        if len(held[1]):
            with torch.no_grad():
                right = int((now.logits(held[0], texts).argmax(1) == held[1]).sum())
            if right >= best:
                kept, best, chosen = now.copy(), right, epoch
    return (kept if len(held[1]) else now.copy()), chosen
