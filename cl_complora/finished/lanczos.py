"""Extreme eigenvalues of a symmetric linear map that is known by its products only.

Lanczos with full re-orthogonalisation, as in "Learning Rate Matters" (arXiv 2602.04998). Power iteration
would not do: it finds the eigenvalue of largest modulus, and a Hessian at the start of a low-rank update is
indefinite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Steps before convergence is asked about: a start vector may be nearly orthogonal to what is looked for.
_FEWEST = 5
# A remainder of this share of the map's scale is rounding: the start vector's whole space is used up.
_ROUNDING = 1e-7


@dataclass(frozen=True)
class Extremes:
    """What Lanczos found.

    Attributes:
        largest, smallest: eigenvalues.
        steps: products that were taken.
        converged: whether the largest had settled within the tolerance (or the space was used up).
    """

    largest: float
    smallest: float
    steps: int
    converged: bool


def extremes(
    product: Callable[[Tensor], Tensor], start: Tensor, tolerance: float = 1e-3, most_steps: int = 100
) -> Extremes:
    """Largest and smallest eigenvalue of H.

    Args:
        product: v → H v, of ``(n,)``.
        start: ``(n,)``, not zero; all vectors have its dtype.
        tolerance: on ‖H x − λ x‖ of the largest, relative to the larger modulus of the two; a value that
            merely stays from one step to the next may still be far off.
        most_steps: of the iteration; as many vectors of n numbers are held.

    Raises:
        ValueError: for a product that is not finite.
    """
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    largest = smallest = scale = 0.0
    for step in range(1, min(most_steps, start.numel()) + 1):
        image = product(basis[-1])
        if not bool(torch.isfinite(image).all()):
            raise ValueError("a product with the Hessian is not finite")
        diagonal.append(float(image @ basis[-1]))
        # Twice is enough (Parlett): what rounding leaves of the first pass goes in the second.
        for _ in range(2):
            for vector in basis:
                image = image - (image @ vector) * vector
        t = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        if beside:
            off = torch.tensor(beside, dtype=torch.float64)
            t += torch.diag(off, 1) + torch.diag(off, -1)
        values, vectors = torch.linalg.eigh(t)
        largest, smallest = float(values[-1]), float(values[0])
        scale = max(abs(largest), abs(smallest))
        rest = float(image.norm())
        if rest <= _ROUNDING * scale or scale == rest == 0.0:
            return Extremes(largest, smallest, step, True)
        if step >= _FEWEST and rest * abs(float(vectors[-1, -1])) <= tolerance * scale:
            return Extremes(largest, smallest, step, True)
        beside.append(rest)
        basis.append(image / rest)
    return Extremes(largest, smallest, len(diagonal), len(diagonal) == start.numel())
