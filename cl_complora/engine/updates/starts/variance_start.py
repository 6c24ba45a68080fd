"""EVA: low-rank factors that start in the directions in which the coming task's inputs vary most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ....clip.slots import Slot
from ....config.factors import VarianceStart
from ....lowrank import Side, Start
from ..input_directions import input_moments
from .initialisation import Starting


class VarianceStarting(Starting, supports_distributed=False):
    """EVA (Paischer et al., 2024, its code): A = leading principal components of the inputs, B = 0.

    Ranks follow the data: every matrix offers ``most`` times the rank directions with their shares of its
    variance, and the largest shares of all matrices are taken, as many as the ranks of all. Equal ones go to
    the first.

    In a subspace of the inputs (ours, with ``most: 1``) A = leading principal components of V_cᵀ x, what the
    matrix may read of them, and every matrix has the same rank.
    """

    def __init__(self, settings: VarianceStart) -> None:
        super().__init__()
        self.settings = settings
        self._moments: dict[str, tuple[Tensor, Tensor, int]] = {}
        self._components: dict[str, tuple[Tensor, Tensor]] = {}
        self._ranks: dict[str, int] = {}

    def look_ahead(self, slots: Sequence[Slot], model: nn.Module, experience) -> None:
        """Moments of the coming experience's inputs."""
        self._moments = input_moments(slots, model, experience, self.settings.images, padding=False)

    def begun(self) -> None:
        """As in the base class."""
        self._moments, self._components, self._ranks = {}, {}, {}

    def of(self, slot: Slot, rank: int, scaling: float, input: Side, output: Side | None = None) -> Start:
        """As many components as the matrix has won; one that has won none is not trained. In a subspace as
        many as the rank, or as it has directions."""
        if input is not None and input.basis is not None:
            _, rows = components(*within(input.basis, *self._moments[slot.name]))
            return Start(a=rows[:rank].to(slot.weight.dtype).cpu().contiguous())
        if not self._ranks:
            self._components = {name: components(*found) for name, found in self._moments.items()}
            shares = {name: ratios for name, (ratios, _) in self._components.items()}
            self._ranks = ranks_by_variance(shares, rank, self.settings.most)
        won, rows = self._ranks[slot.name], self._components[slot.name][1]
        if won == 0:
            return Start(a=torch.zeros(1, rows.shape[1], dtype=slot.weight.dtype), train_a=False)
        return Start(a=rows[:won].to(slot.weight.dtype).cpu().contiguous())


def within(basis: Tensor, square: Tensor, total: Tensor, count: int) -> tuple[Tensor, Tensor, int]:
    """Moments of V_cᵀ x.

    Args:
        basis: V_c, ``in × m`` orthonormal.
        square, total, count: moments of x, as for :func:`components`.
    """
    basis = basis.to(square)
    return basis.mT @ square @ basis, basis.mT @ total, count


def components(square: Tensor, total: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(shares of the variance, principal components as rows), both descending.

    Args:
        square: Σ x xᵀ, ``in × in``.
        total: Σ x, ``(in,)``.
        count: number of x.
    """
    values, vectors = torch.linalg.eigh(square - torch.outer(total, total) / count)
    values = values.flip(0).clamp_min(0)
    return values / values.sum().clamp_min(1e-300), vectors.flip(1).mT


def ranks_by_variance(shares: Mapping[str, Tensor], rank: int, most: float) -> dict[str, int]:
    """Rank of every matrix: the rank times the number of matrices goes to the largest shares.

    Args:
        shares: matrix → shares of its variance, descending.
        rank: r on the mean.
        most: a matrix gets at most round(most · r).
    """
    names = list(shares)
    offers = [(name, float(share)) for name in names for share in shares[name][: round(most * rank)]]
    ranked = sorted(offers, key=lambda offer: -offer[1])  # stable: the first of equal ones
    chosen = ranked[: rank * len(names)]
    return {name: sum(1 for winner, _ in chosen if winner == name) for name in names}
