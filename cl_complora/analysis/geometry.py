"""What a task did to every linear map: how far it moved, along which directions, and what that did to the
spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..clip.slots import Slot
from ..subspace import CLEAR, LARGE, by_matrix, energy_rank, overlap, right_directions

# The principal subspace that drift and overlap refer to, whatever a method itself protects.
ENERGY = 0.5
# Leading directions of an update: those that hold this share of its squared norm.
LEADING = 0.99
# Singular values kept of a spectrum: the first, the last, and others at even steps of the logarithm of their
# place.
POINTS = 32


@dataclass(frozen=True)
class Spectrum:
    """Thin singular value decomposition W = U Σ Vᵀ with the number of principal triples.

    Attributes:
        u, v: left and right directions as columns, at least the k principal ones.
        sigma: singular values, descending; of an update known by its factors those alone that may be above
            zero.
        k: how many of them hold half of the energy.
    """

    u: Tensor
    v: Tensor
    sigma: Tensor
    k: int

    @classmethod
    def of(cls, weight: Tensor) -> Spectrum:
        """In float32: figures to look at, not bases to project with; on the CPU, as subspaces are."""
        w = weight.detach().cpu().float()
        if min(w.shape) >= LARGE:
            return cls._of_large(w)
        u, sigma, vh = torch.linalg.svd(w, full_matrices=False)
        return cls(u, vh.mT, sigma, energy_rank(sigma, ENERGY))

    @classmethod
    def _of_large(cls, w: Tensor) -> Spectrum:
        """From the eigenvectors of WᵀW in float64, in a third of the time; without left directions that are
        next to nothing of W."""
        if w.shape[0] < w.shape[1]:
            turned = cls._of_large(w.mT)
            return replace(turned, u=turned.v, v=turned.u)
        w = w.double()
        sigma, v = right_directions(w)
        clear = int((sigma > CLEAR * sigma[0]).sum())
        u = (w @ v[:, :clear]) / sigma[:clear]
        return cls(u.float(), v.float(), sigma.float(), energy_rank(sigma, ENERGY))

    @classmethod
    def of_factors(cls, b: Tensor, a: Tensor) -> Spectrum:
        """Of B A, ``out × r`` by ``r × in``, without the product: from its core between two orthonormal
        bases."""
        (left, upper), (right, lower) = (torch.linalg.qr(part.detach().cpu().float()) for part in (b, a.mT))
        u, sigma, vh = torch.linalg.svd(upper @ lower.mT)
        return cls(left @ u, right @ vh.mT, sigma, energy_rank(sigma, ENERGY))

    def trimmed(self) -> Spectrum:
        """Without the directions that are not principal, which take most of the memory."""
        return replace(self, u=self.u[:, : self.k].clone(), v=self.v[:, : self.k].clone())

    def effective_rank(self) -> float:
        """exp of the entropy of σ / Σσ (Roy and Vetterli, EUSIPCO 2007); 0 for a zero matrix."""
        total = self.sigma.double().sum()
        if float(total) == 0.0:
            return 0.0
        share = self.sigma.double() / total
        return float(torch.exp(-torch.special.xlogy(share, share).sum()))

    def leading(self) -> tuple[Tensor, Tensor]:
        """Left and right directions that hold :data:`LEADING` of the energy."""
        k = energy_rank(self.sigma, LEADING)
        return self.u[:, :k], self.v[:, :k]

    def points(self) -> list[float]:
        """At most :data:`POINTS` singular values, the largest and the smallest among them."""
        full = len(self.sigma)
        places = (
            torch.logspace(0, torch.log10(torch.tensor(float(full))), POINTS).round().long().clamp(1, full)
            - 1
        )
        return self.sigma[places.unique()].tolist()


@dataclass(frozen=True)
class Update:
    """What a task added to one matrix.

    Attributes:
        change: ΔW, ``out × in``.
        factors: (B, A) with ΔW = B A, where it is of low rank.
    """

    change: Tensor
    factors: tuple[Tensor, Tensor] | None = None

    def spectrum(self) -> Spectrum:
        """Of ΔW."""
        if self.factors is not None and min(self.change.shape) >= LARGE:
            return Spectrum.of_factors(*self.factors)
        return Spectrum.of(self.change)


class GeometryWatch:
    """Compares the weights before and after each task.

    Args:
        slots: the linear maps of the model.
        independent: whether every task starts from the weights that the first one starts from.
    """

    def __init__(self, slots: Sequence[Slot], independent: bool = False) -> None:
        self.slots, self.independent = slots, independent
        self._before: dict[str, Tensor] = {}
        self._spectra: dict[str, Spectrum] = {}
        self._leading: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}

    def before(self) -> None:
        """Remember the weights that a task starts from, where their spectrum is not known from the task
        before; of independent tasks only those of the first, since the model now holds what the task before
        made of them."""
        if self.independent and (self._before or self._spectra):
            return
        self._before = {
            s.name: s.weight.detach().to("cpu", copy=True) for s in self.slots if s.name not in self._spectra
        }

    @torch.no_grad()
    def after(self, task: str, updates: dict[str, Update]) -> dict[str, dict[str, Any]]:
        """Matrix → what the task did to it.

        Args:
            task: its name.
            updates: matrix → what it added, of every matrix that it moved; the weights hold them already.

        With W → W + ΔW, U_k, V_k the principal directions of W (half of its energy) and U'_k, V'_k those of W
        + ΔW:

            delta_norm, relative_norm    ‖ΔW‖_F, and that over ‖W‖_F
            update_rank, effective_rank  effective ranks of ΔW and of W + ΔW
            principal_rank               k of W
            principal_overlap            share of ‖ΔW‖_F that touches the principal subspaces:
                                         ‖ΔW − (I − U_k U_kᵀ) ΔW (I − V_k V_kᵀ)‖_F / ‖ΔW‖_F
            drift                        mean sin² of the angles between U_k and U'_k, and V_k and V'_k
            overlap_with                 {earlier task: share of ‖ΔW‖_F along the leading directions of its
                                         update, mean of both sides}
            spectrum_before, spectrum_after  some singular values, descending
        """
        moved = [s for s in self.slots if s.name in updates and bool(updates[s.name].change.any())]
        seen = by_matrix(
            lambda slot: self._of_task(slot, updates[slot.name]), moved, [s.weight.shape for s in moved]
        )
        found = {}
        for slot, (figures, next_start, leading) in zip(moved, seen, strict=True):
            found[slot.name] = figures
            self._spectra[slot.name] = next_start
            self._before.pop(slot.name, None)
            self._leading.setdefault(slot.name, {})[task] = leading
        if not self.independent:
            self._before = {}
        return found

    def _of_task(self, slot: Slot, added: Update) -> tuple[dict[str, Any], Spectrum, tuple[Tensor, Tensor]]:
        """Figures of what a task added to a matrix, the spectrum that the next task starts from, and the
        update's leading directions."""
        update, start = added.change.cpu(), self._before.get(slot.name)
        old = self._spectra[slot.name] if start is None else Spectrum.of(start).trimmed()
        new, change = Spectrum.of(slot.weight), added.spectrum()
        earlier = self._leading.get(slot.name, {})
        figures = _figures(update, old, new, change) | {
            "overlap_with": {name: _shared(update, directions) for name, directions in earlier.items()}
        }
        return figures, old if self.independent else new.trimmed(), change.leading()

    def restore(self, task: str, updates: dict[str, Update]) -> None:
        """Take an earlier task's updates to compare later ones with."""
        moved = {name: update for name, update in updates.items() if bool(update.change.any())}
        found = by_matrix(
            lambda update: update.spectrum().leading(),
            list(moved.values()),
            [update.change.shape for update in moved.values()],
        )
        for name, leading in zip(moved, found, strict=True):
            self._leading.setdefault(name, {})[task] = leading


def _figures(update: Tensor, old: Spectrum, new: Spectrum, change: Spectrum) -> dict[str, Any]:
    norm, whole = float(torch.linalg.matrix_norm(update)), float(torch.linalg.vector_norm(old.sigma))
    u, v = old.u[:, : old.k], old.v[:, : old.k]
    outside = update - u @ (u.mT @ update)
    outside = outside - (outside @ v) @ v.mT
    drifts = [_drift(u, new.u[:, : old.k]), _drift(v, new.v[:, : old.k])]
    return {
        "delta_norm": norm,
        "relative_norm": norm / whole if whole else None,
        "update_rank": change.effective_rank(),
        "effective_rank": new.effective_rank(),
        "principal_rank": old.k,
        "principal_overlap": float(torch.linalg.matrix_norm(update - outside)) / norm,
        "drift": sum(drifts) / 2,
        "spectrum_before": old.points(),
        "spectrum_after": new.points(),
    }


def _drift(before: Tensor, after: Tensor) -> float:
    """Mean sin² of the principal angles between two bases of as many columns."""
    if before.shape[1] == 0:
        return 0.0
    kept = float((before.mT @ after).double().square().sum()) / before.shape[1]
    return min(1.0, max(0.0, 1.0 - kept))


def _shared(update: Tensor, directions: tuple[Tensor, Tensor]) -> float:
    left, right = directions
    return (overlap(update, left) + overlap(update.mT, right)) / 2
