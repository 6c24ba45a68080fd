"""Principal subspaces of a weight matrix, their complements, and when they provably have not moved.

Orientation is PyTorch's: ``W`` is ``out × in`` and ``W = U Σ Vᵀ``; the output side is **U**, the input side
is **V** (a square matrix hides a swap, so everything here is tested on rectangles). Decompositions run in
float64 and are returned in float32: a float32 Gram matrix loses half the digits where two singular values are
close, one in float64 still has all that float32 can hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

# Relative room left between the complement's largest singular value and σ_k before a subspace counts as
# unmoved: float32 merges move a singular value by about 1e-7 of ‖W‖, so this is a wide margin.
CERTIFICATE_MARGIN = 1e-5
# Matrices of at least so many rows and columns are split through their Gram matrix; LAPACK decomposes smaller
# ones in some milliseconds.
LARGE = 384
# Smallest σ_k / σ₁ for that: W V_k / σ_k is orthonormal to 1e-16 (σ₁/σ_k)².
CLEAR = 1e-3

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Keep:
    """How many leading singular triples are principal.

    Attributes:
        kind: ``energy`` (smallest k with Σ_{i≤k} σᵢ² ≥ ρ‖W‖²_F), ``fraction`` (of min(out, in), rounded down)
            or ``number`` (k itself).
        value: ρ in (0, 1], a fraction in [0, 1), or a count ≥ 0.

    Raises:
        ValueError: for another kind or value.
    """

    kind: Literal["energy", "fraction", "number"]
    value: float

    def __post_init__(self) -> None:
        value = self.value
        rules = {
            "energy": (0 < value <= 1, "in (0, 1]"),
            "fraction": (0 <= value < 1, "in [0, 1)"),
            "number": (value >= 0 and float(value).is_integer(), "a whole number, at least 0"),
        }
        if self.kind not in rules:
            raise ValueError(f"kind: must be {', '.join(rules)}, got {self.kind!r}")
        fits, allowed = rules[self.kind]
        if not fits:
            raise ValueError(f"value: must be {allowed} for {self.kind}, got {value}")

    def rank(self, singular_values: Tensor, room: int = 1) -> int:
        """Number of principal directions k for a descending spectrum.

        Args:
            singular_values: ``(min(out, in),)``, descending.
            room: directions that must remain outside, so that factors of that rank still fit.

        Returns:
            k with 0 ≤ k ≤ len(singular_values) − room.
        """
        full = len(singular_values)
        if self.kind == "energy":
            k = energy_rank(singular_values, self.value)
        elif self.kind == "fraction":
            k = int(self.value * full + 1e-9)  # 0.29 · 100 lies below 29
        else:
            k = int(self.value)
        return max(0, min(k, full - room))

    def gives(self, leading: Tensor, total: float, full: int, room: int = 1) -> bool:
        """Whether :meth:`rank` gives ``len(leading)`` for a spectrum of which only that much is known.

        Args:
            leading: the largest singular values, descending; as many as an earlier spectrum of the shape had.
            total: Σ σᵢ² of all of them.
            full, room: number of singular values, and as in :meth:`rank`.
        """
        if self.kind != "energy":
            return True
        reached = leading.double().square().cumsum(0)
        needed, k = self.value * total * (1 - 1e-12), len(leading)
        enough = k == max(0, full - room) or bool(k and reached[-1] >= needed)
        return enough and (k < 2 or bool(reached[-2] < needed))


def energy_rank(singular_values: Tensor, energy: float) -> int:
    """Smallest k with Σ_{i≤k} σᵢ² ≥ energy · Σᵢ σᵢ² (0 for a zero matrix or energy ≤ 0)."""
    squares = singular_values.double().square()
    total = float(squares.sum())
    if total == 0.0 or energy <= 0.0:
        return 0
    reached = squares.cumsum(0) >= energy * total * (1 - 1e-12)
    return int(torch.argmax(reached.to(torch.uint8))) + 1 if bool(reached.any()) else len(squares)


@dataclass(frozen=True)
class Principal:
    """The split of one matrix into its k leading singular triples and the orthogonal rest.

    Attributes:
        u: ``(out, out)`` orthonormal columns, the first k of them the principal left singular vectors.
        v: ``(in, in)`` orthonormal columns, the first k of them the principal right singular vectors.
        sigma: ``(min(out, in),)`` singular values, descending.
        k: number of principal triples.
    """

    u: Tensor
    v: Tensor
    sigma: Tensor
    k: int

    @property
    def u_k(self) -> Tensor:
        """``(out, k)`` principal output directions."""
        return self.u[:, : self.k]

    @property
    def v_k(self) -> Tensor:
        """``(in, k)`` principal input directions."""
        return self.v[:, : self.k]

    @property
    def u_c(self) -> Tensor:
        """``(out, out − k)`` complement on the output side."""
        return self.u[:, self.k :]

    @property
    def v_c(self) -> Tensor:
        """``(in, in − k)`` complement on the input side."""
        return self.v[:, self.k :]


def principal(weight: Tensor, keep: Keep, room: int = 1, ordered: bool = True) -> Principal:
    """Singular value decomposition of ``weight`` (``out × in``) with k chosen by ``keep``.

    Args:
        weight: decomposed in float64.
        keep, room: as in :meth:`Keep.rank`.
        ordered: whether the columns of u and v beyond the first k are singular vectors too, in order. Without
            it they are any orthonormal basis of the complement, which takes less than half the time for large
            matrices.

    Raises:
        ValueError: if ``weight`` is not a finite matrix.
    """
    if weight.ndim != 2:
        raise ValueError(f"principal() needs a matrix, got shape {tuple(weight.shape)}")
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("principal() needs finite weights, got NaN or infinity")
    w = weight.detach().double()
    found = None if ordered or min(w.shape) < LARGE else _split(w, keep, room)
    if found is None:
        u, sigma, vh = torch.linalg.svd(w, full_matrices=True)
        found = Principal(u, vh.mT.contiguous(), sigma, keep.rank(sigma, room))
    u, v, sigma = (part.to(weight.dtype) for part in (found.u, found.v, found.sigma))
    return Principal(u, v, sigma, found.k)


def _split(w: Tensor, keep: Keep, room: int) -> Principal | None:
    """The split of a float64 matrix from the eigenvectors of WᵀW; None where σ_k is too small for that.

    The eigenproblem takes a third of the time of a singular value decomposition. U_k = W V_k Σ_k⁻¹, and its
    complement follows from k reflections.
    """
    if w.shape[0] < w.shape[1]:
        turned = _split(w.mT, keep, room)
        return None if turned is None else Principal(turned.v, turned.u, turned.sigma, turned.k)
    sigma, v = right_directions(w)
    k = keep.rank(sigma, room)
    if k == 0 or not float(sigma[k - 1]) > CLEAR * float(sigma[0]):
        return None
    u_k = (w @ v[:, :k]) / sigma[:k]
    return Principal(torch.cat([u_k, _beyond(u_k)], 1), v, sigma, k)


def right_directions(w: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values, descending, and right directions of a float64 matrix at least as high as wide, from
    WᵀW."""
    values, vectors = torch.linalg.eigh(w.mT @ w)
    return values.clamp_min(0).sqrt().flip(0), vectors.flip(1)


def _beyond(basis: Tensor) -> Tensor:
    """As :func:`complement`, by products instead of LAPACK's reflection by reflection (``d × k``, k ≥ 1).

    That takes a tenth of the time, and is another basis of the same space; :func:`complement` keeps LAPACK's,
    on which the bits of every run that protects updates depend.
    """
    y, rest = _reflections(basis)
    q = -y @ rest
    q[basis.shape[1] :].diagonal().add_(1)
    return q


def _reflections(basis: Tensor) -> tuple[Tensor, Tensor]:
    """Y, ``d × k``, and T Y[k:]ᵀ, ``k × (d − k)``: the last d − k columns of Q = I − Y T Yᵀ are orthogonal to
    the ``d × k`` basis.

    Y holds its Householder vectors and T⁻¹ = striu(YᵀY) + diag(1/τ) (Puglisi 1992, Joffrain et al. 2006).
    """
    y, tau = torch.geqrf(basis)
    k = basis.shape[1]
    y = y.tril(-1)
    y.diagonal().fill_(1)
    # τ = 0 stands for no reflection, where a column already is what it would become.
    idle = tau == 0
    y[:, idle] = 0
    inverse = (y.mT @ y).triu(1) + torch.diag(torch.where(idle, 1, tau).reciprocal())
    return y, torch.linalg.solve_triangular(inverse, y[k:].mT, upper=True)


def rest_of(free: Tensor, taken: Tensor) -> Tensor:
    """Orthonormal basis of what a subspace has beside some of its directions, free · :func:`complement` of
    taken.

    In a large subspace the complement, which has nearly its size, is never formed.

    Args:
        free: ``d × n``, an orthonormal basis of the subspace.
        taken: ``n × p``, orthonormal directions in its coordinates.

    Returns:
        ``d × (n − p)``.
    """
    p = taken.shape[1]
    if p == 0 or len(taken) < LARGE:
        return free @ complement(taken)
    y, rest = _reflections(taken.double())
    wide = free.double()
    return (wide[:, p:] - (wide @ y) @ rest).to(free.dtype)


def unchanged(weight: Tensor, split: Principal, keep: Keep, room: int = 1) -> bool:
    """Certificate that the principal subspace of ``weight`` is still that of ``split``, up to rounding (1e-5
    ‖W‖).

    Holds when the matrix still acts on the principal directions as before (true by construction for an update
    inside the two-sided complement), what is left of it stays below σ_k, and k recomputed from the new norm
    is the same. That takes one Cholesky factorisation, since σ_k² I − R Rᵀ has one exactly if ‖R‖₂ < σ_k, and
    no decomposition.

    Args:
        weight: ``out × in``, the merged weight.
        split: the decomposition of an earlier weight.
        keep: the rule that chose ``split.k``.
        room: as in :meth:`Keep.rank`.
    """
    k = split.k
    w = weight.detach().double()
    scale = float(torch.linalg.matrix_norm(w))
    if scale == 0.0 or not math.isfinite(scale):
        return False
    u_k, v_k, sigma = split.u_k.double(), split.v_k.double(), split.sigma[:k].double()
    if k:
        seen = u_k.mT @ w
        moved = (w @ v_k - u_k * sigma).norm() + (seen - sigma[:, None] * v_k.mT).norm()
        if float(moved) > 1e-5 * scale or not _below(
            w - u_k @ seen, float(sigma[-1]) * (1 - CERTIFICATE_MARGIN)
        ):
            return False
    return keep.gives(sigma, scale**2, len(split.sigma), room)


def _below(matrix: Tensor, bound: float) -> bool:
    """Whether the spectral norm is below ``bound``."""
    x = matrix[matrix.norm(dim=1).argmax()]
    for _ in range(
        4
    ):  # power iteration bounds the norm from below, which settles the clear cases for next to nothing
        x = matrix.mT @ (matrix @ (x / x.norm().clamp_min(1e-300)))
        if float(x.norm()) >= bound**2:
            return False
    gram = matrix @ matrix.mT if matrix.shape[0] <= matrix.shape[1] else matrix.mT @ matrix
    gram.neg_().diagonal().add_(bound**2)
    return int(torch.linalg.cholesky_ex(gram).info) == 0


def orthonormal(vectors: Tensor, tolerance: float = 1e-6, scale: float | None = None) -> Tensor:
    """Orthonormal basis of the column space of ``vectors`` (``d × n`` → ``d × rank``).

    Directions below ``tolerance`` times ``scale`` (the largest singular value by default) are dropped: they
    are rounding, not content.
    """
    if vectors.shape[1] == 0:
        return vectors
    u, s, _ = torch.linalg.svd(vectors.double(), full_matrices=False)
    if len(s) == 0 or float(s[0]) == 0.0:
        return vectors[:, :0]
    return u[:, s > tolerance * (float(s[0]) if scale is None else scale)].to(vectors.dtype)


def complement(basis: Tensor) -> Tensor:
    """Orthonormal basis of the orthogonal complement of ``basis``'s columns (``d × p`` → ``d × (d − p)``)."""
    d, p = basis.shape
    if p == 0:
        return torch.eye(d, dtype=basis.dtype, device=basis.device)
    q, _ = torch.linalg.qr(basis.double(), mode="complete")
    return q[:, p:].to(basis.dtype)


def random_basis(dimension: int, columns: int, generator: torch.Generator) -> Tensor:
    """``dimension × columns`` orthonormal basis of a uniformly random subspace (QR of a Gaussian)."""
    gaussian = torch.randn(dimension, columns, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(gaussian).Q.float()


def overlap(update: Tensor, basis: Tensor) -> float:
    """Share of an update's Frobenius norm that lies in a subspace: ‖P_basis M‖_F / ‖M‖_F, in 0..1.

    Args:
        update: ``d × n`` (columns are compared with the basis).
        basis: ``d × p`` with orthonormal columns.
    """
    norm = float(torch.linalg.matrix_norm(update.double()))
    if norm == 0.0 or basis.shape[1] == 0:
        return 0.0
    return float(torch.linalg.matrix_norm(basis.double().mT @ update.double())) / norm


def principal_angles(a: Tensor, b: Tensor) -> Tensor:
    """Angles (radians, ascending) between the column spaces of two orthonormal bases ``d × p`` and ``d ×
    q``."""
    cosines = torch.linalg.svdvals(a.double().mT @ b.double()).clamp(0.0, 1.0)
    return torch.arccos(cosines).clamp(0.0, math.pi / 2).float()


def by_matrix(
    work: Callable[[Item], Result], items: Sequence[Item], shapes: Iterable[Sequence[int]]
) -> list[Result]:
    """``[work(item) for item in items]`` without gradients, several at a time where matrices are large.

    LAPACK splits the eigenproblem of one matrix of some hundred rows over a few threads at best; of a hundred
    matrices every thread takes one. Each is computed by one thread, also a single one, so that neither the
    number of threads nor that of the matrices changes a bit.

    Args:
        work: reads what others may read meanwhile, and writes nothing that they read.
        items: what it is called with.
        shapes: of the matrices behind them; where none has :data:`LARGE` rows and
            columns, one follows the other.

    Raises:
        Exception: the first that ``work`` raised, in the order of the items.
    """
    threads = torch.get_num_threads()
    large = any(min(shape) >= LARGE for shape in shapes)
    with torch.no_grad():
        if not large or threads == 1 or not items:
            return [work(item) for item in items]
    try:
        # The number of threads, like whether gradients are recorded, is each thread's own for OpenMP, but the
        # process's for MKL.
        with ThreadPoolExecutor(
            min(threads, len(items)), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            return list(pool.map(torch.no_grad()(work), items))
    finally:
        torch.set_num_threads(threads)
