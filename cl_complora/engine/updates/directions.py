"""SD-LoRA: what earlier tasks learned stays as directions, whose lengths every task trains anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...clip.slots import Slot
from ...config.factors import Directions
from ...lowrank import LowRankBlock
from .between import Between


@dataclass
class Held:
    """Directions of the finished tasks of one matrix.

    Attributes:
        b: ``out × r·t``, B̂_i side by side, each of Frobenius norm 1.
        a: ``r·t × in``, Â_i one under the other, likewise.
        lengths: ``(t,)``, what the merged weight holds of each B̂_i Â_i.
    """

    b: Tensor
    a: Tensor
    lengths: Tensor


class ScaledDirections(nn.Module):
    """(B, A) → factors of Σ_{i<t} (α_i − length_i)·B̂_i Â_i + α_t·B A.

    Added to a weight that holds Σ length_i·B̂_i Â_i, that makes y = W₀x + Σ_{i<t} α_i·B̂_iÂ_i x + α_t·B A x.

    Args:
        alpha: ``(t,)`` α of the earlier tasks and of this one; may be shared between matrices.
        held: of the earlier tasks; None in the first.
    """

    def __init__(self, alpha: nn.Parameter, held: Held | None) -> None:
        super().__init__()
        self.alpha = alpha
        for name in ("b", "a", "lengths"):
            self.register_buffer(name, None if held is None else getattr(held, name), persistent=False)

    def forward(self, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """``out × r``, ``r × in`` → ``out × r·t``, ``r·t × in``, those of this task last."""
        b = b * self.alpha[-1]
        if self.lengths is None:
            return b, a
        change = (self.alpha[:-1] - self.lengths).repeat_interleave(self.a.shape[0] // len(self.lengths))
        return torch.cat([self.b * change, b], 1), torch.cat([self.a, a])


class DirectionsPlugin(Between, supports_distributed=False):
    """SD-LoRA (Wu et al., ICLR 2025, its code): y = W₀x + Σ_{i<t} α_i·B_iA_ix/(‖B_i‖‖A_i‖) + α_t·B_tA_tx.

    All α are trained, the earlier A_i and B_i are not. Weights are merged after every task like those of
    every strategy; a task's update also holds how it changed the lengths of earlier directions, so its rank
    is r·t.
    """

    def __init__(self, settings: Directions) -> None:
        super().__init__()
        self.settings = settings
        self.held: dict[str, Held] = {}
        self._alpha: nn.Parameter | None = None

    def begin(self, slots: Sequence[Slot], task: int) -> None:
        """Where one α serves all matrices, make it."""
        if self.settings.per == "model":
            count = 1 + (len(next(iter(self.held.values())).lengths) if self.held else 0)
            self._alpha = nn.Parameter(torch.full((count,), self.settings.initial))

    def of(self, slot: Slot, rank: int) -> nn.Module:
        """The directions of the slot, and their α."""
        held = self.held.get(slot.name)
        if self.settings.per == "model":
            return ScaledDirections(self._alpha, held)
        start = torch.full((1 + (0 if held is None else len(held.lengths)),), self.settings.initial)
        if held is not None and not self.settings.restart:
            start[:-1] = held.lengths
        return ScaledDirections(nn.Parameter(start), held)

    @torch.no_grad()
    def learned(self, slot: Slot, block: LowRankBlock) -> None:
        """The update of this task becomes a direction."""
        b, a = (factor.detach() for factor in block.composed())
        alpha, norms = block.between.alpha.detach(), (b.norm(), a.norm())
        lengths = torch.cat([alpha[:-1], (alpha[-1] * norms[0] * norms[1])[None]])
        b, a = (factor / norm if norm > 0 else factor for factor, norm in zip((b, a), norms, strict=True))
        before = self.held.get(slot.name)
        if before is not None:
            b, a = torch.cat([before.b.to(b), b], 1), torch.cat([before.a.to(a), a])
        self.held[slot.name] = Held(b, a, lengths)

    def tensors(self) -> dict[str, Tensor]:
        """The directions and their lengths."""
        return {f"{kind}/{name}": getattr(h, kind) for name, h in self.held.items() for kind in vars(h)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take them back."""
        names = dict.fromkeys(key.partition("/")[2] for key in tensors)
        self.held = {
            name: Held(*(tensors[f"{kind}/{name}"] for kind in ("b", "a", "lengths"))) for name in names
        }
