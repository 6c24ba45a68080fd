"""Relative steps: the rate says how far a step moves a matrix in shares of the matrix's own length.

For a matrix W that is trained as it is, with Δ the step that the optimiser takes at rate η (its weight decay
included):

    ΔW = η · ‖W‖_F / ‖Δ‖_F · Δ,   so that ‖ΔW‖_F = η ‖W‖_F

which is the trust ratio ‖W‖/‖u‖ of LARS (You et al., arXiv 1708.03888) and LAMB (arXiv 1904.00962) on Δ = −η
u. Rows that do not move (tokens of no prompt) do not count in ‖W‖_F. Parameters of one axis (biases, norms,
class embeddings, the row lengths beside DoRA's factors) keep the optimiser's own step, as in LAMB's
implementations.

For factors of a matrix W, whose update is s·B′A′, both factors' steps Δ_A, Δ_B are scaled by one number:

    c = η · ‖W‖_F / u,   u² = ‖s·Δ_B′ A′‖²_F + ‖s·B′ Δ_A′‖²_F

u is how far the product moves, to first order and with what the two factors do taken as orthogonal (so it is
zero only where neither moves the product: a change of basis B T · T⁻¹ A is no reason for a giant step). W is
the host matrix as it was before the experience, and η the rate of the step, which the schedule has scaled. A
matrix of zeros, and a step of none, are left as they are.

What stands between the factors of one matrix alone (gates, a gain) is scaled by c with them and is a part of
what moves B′ and A′. What several matrices share (SD-LoRA's α) has no c of its own: it keeps the optimiser's
own step, and u is measured with what it was before that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..adapter import AdapterPlugin


class _Factors:
    """The factors of one matrix, of which none, one or both are trained.

    Attributes:
        trained: what this matrix alone has.
        shared: what other matrices have as well.
    """

    def __init__(self, block: nn.Module, host: Tensor, shared: set[int]) -> None:
        self.block, self.norm = block, torch.linalg.matrix_norm(host.detach())
        moving = [p for p in block.parameters() if p.requires_grad and p is not block.m]
        self.trained = [p for p in moving if id(p) not in shared]
        self.shared = [p for p in moving if id(p) in shared]

    def remember(self) -> None:
        self.before = [p.detach().clone() for p in self.trained]
        self.shared_before = [p.detach().clone() for p in self.shared]
        # Without a basis they are the parameters themselves, which the step changes.
        self.product = [factor.clone() for factor in self.block.factors()]

    def ratio(self) -> Tensor:
        """‖W‖/u of the step since :meth:`remember`."""
        with self._shared_as_before():
            (b, a), (new_b, new_a) = self.product, self.block.factors()
        moved = (_product_norm(new_b - b, a).square() + _product_norm(b, new_a - a).square()).sqrt()
        return self.norm / moved

    @contextmanager
    def _shared_as_before(self) -> Iterator[None]:
        stepped = [p.detach().clone() for p in self.shared]
        for p, old in zip(self.shared, self.shared_before, strict=True):
            p.copy_(old)
        yield
        for p, new in zip(self.shared, stepped, strict=True):
            p.copy_(new)


class _Whole:
    """One matrix that is trained as it is."""

    def __init__(self, p: Tensor) -> None:
        self.trained = [p]

    def remember(self) -> None:
        self.before = [p.detach().clone() for p in self.trained]

    def ratio(self) -> Tensor:
        """‖W‖/‖Δ‖ of the step since :meth:`remember`, over the rows that moved."""
        before, p = self.before[0].flatten(1), self.trained[0].detach().flatten(1)
        rows = (p != before).any(dim=1)
        return (before * rows[:, None]).norm() / (p - before).norm()


def _product_norm(b: Tensor, a: Tensor) -> Tensor:
    """‖B A‖_F of ``m × r`` and ``r × n`` without the product: tr(BᵀB · A Aᵀ)^½."""
    return ((b.mT @ b) * (a @ a.mT)).sum().clamp(min=0).sqrt()


def move_relatively(optimiser: Optimizer, adapter: AdapterPlugin) -> None:
    """Have every step of an optimiser move each matrix by its rate times the matrix's length.

    Args:
        optimiser: over what the adapter trains; its own state stays as it would be.
        adapter: has attached what the experience trains.
    """
    members = list(_members(optimiser, adapter))

    @torch.no_grad()
    def before(*_) -> None:
        for member in members:
            member.remember()

    @torch.no_grad()
    def after(*_) -> None:
        rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
        for member in members:
            # The step has the rate in it already, linearly.
            ratio = member.ratio() * rates[id(member.trained[0])]
            factor = torch.where(torch.isfinite(ratio) & (ratio > 0), ratio, torch.ones_like(ratio))
            for p, old in zip(member.trained, member.before, strict=True):
                p.copy_(old + (p - old) * factor)

    optimiser.register_step_pre_hook(before)
    optimiser.register_step_post_hook(after)


def _members(optimiser: Optimizer, adapter: AdapterPlugin) -> Iterator[_Factors | _Whole]:
    hosts = adapter.hosts()
    uses = Counter(id(p) for block, _ in hosts for p in block.parameters())
    shared = {key for key, count in uses.items() if count > 1}
    for block, weight in hosts:
        member = _Factors(block, weight, shared)
        if member.trained:
            yield member
    for group in optimiser.param_groups:
        yield from (_Whole(p) for p in group["params"] if p.ndim > 1 and id(p) not in uses)
