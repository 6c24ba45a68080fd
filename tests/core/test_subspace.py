"""Linear algebra of subspaces against naive references, on rectangles, by property."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_complora.subspace import (
    Keep,
    complement,
    energy_rank,
    orthonormal,
    overlap,
    principal,
    principal_angles,
    random_basis,
    rest_of,
    unchanged,
)

shapes = st.tuples(st.integers(2, 12), st.integers(2, 12))
seeds = st.integers(0, 10_000)


def matrix(shape: tuple[int, int], seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(shapes, seeds, st.floats(0.01, 1.0))
def test_energy_rank_is_the_smallest_k(shape, seed, energy):
    sigma = torch.linalg.svdvals(matrix(shape, seed).double())
    k = energy_rank(sigma, energy)
    total = sum(float(s) ** 2 for s in sigma)
    kept = [sum(float(s) ** 2 for s in sigma[:i]) for i in range(len(sigma) + 1)]
    assert kept[k] >= energy * total * (1 - 1e-9)
    assert k == 0 or kept[k - 1] < energy * total * (1 + 1e-9)


def test_a_fraction_of_a_hundred_is_its_percent():
    sigma = torch.linspace(2, 1, 100)
    assert [Keep("fraction", percent / 100).rank(sigma) for percent in range(100)] == list(range(100))
    assert Keep("fraction", 0.2999).rank(sigma) == 29


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("energies", 0.5, "kind: must be energy, fraction, number"),
        ("energy", 50, r"value: must be in \(0, 1\] for energy, got 50"),
        ("energy", 0.0, "value: must be in"),
        ("fraction", 1.0, "value: must be in"),
        ("number", 2.5, "a whole number"),
        ("number", -1, "a whole number"),
        ("energy", float("nan"), "value: must be in"),
    ],
)
def test_a_rule_that_there_is_not_is_refused(kind, value, told):
    with pytest.raises(ValueError, match=told):
        Keep(kind, value)


def test_energy_rank_of_nothing():
    assert energy_rank(torch.zeros(4), 0.9) == 0
    assert energy_rank(torch.ones(4), 0.0) == 0
    assert energy_rank(torch.ones(4), 1.0) == 4


@settings(max_examples=60, deadline=None)
@given(shapes, seeds, st.floats(0, 0.95))
def test_principal_splits_the_matrix(shape, seed, fraction):
    w = matrix(shape, seed)
    split = principal(w, Keep("fraction", fraction))
    assert split.k <= min(shape) - 1
    top = split.u_k * split.sigma[: split.k] @ split.v_k.mT
    rest = split.u_c @ (split.u_c.mT @ w @ split.v_c) @ split.v_c.mT
    assert torch.allclose(top + rest, w, atol=1e-5)
    for basis in (split.u, split.v):
        assert torch.allclose(basis.mT @ basis, torch.eye(len(basis)), atol=1e-5)
    assert (
        split.u.shape[0] == shape[0] and split.v.shape[0] == shape[1]
    )  # U is the output side, V the input side


rules = st.one_of(
    st.builds(Keep, st.just("energy"), st.floats(0.05, 1.0)),
    st.builds(Keep, st.just("fraction"), st.floats(0, 0.99)),
    st.builds(Keep, st.just("number"), st.integers(0, 12)),
)


@settings(max_examples=150, deadline=None)
@given(shapes, seeds, rules, st.integers(1, 12), st.floats(0, 3))
def test_the_split_of_a_large_matrix_is_that_of_its_decomposition(shape, seed, keep, rank, decay):
    """Any rank, any decay of the spectrum; the way for large matrices is taken at any size here."""
    rank = min(rank, *shape)
    left, right = (torch.linalg.qr(matrix((n, rank), seed + n)).Q for n in shape)
    w = left * torch.arange(1, rank + 1) ** -decay @ right.mT
    exact = principal(w, keep)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cl_complora.subspace.LARGE", 1)
        split = principal(w, keep, ordered=False)
    for basis in (split.u, split.v):
        assert torch.allclose(basis.mT @ basis, torch.eye(len(basis)), atol=1e-5)
    assert torch.allclose(split.sigma, exact.sigma, atol=1e-6)
    assert torch.allclose(w @ split.v_k, split.u_k * split.sigma[: split.k], atol=1e-5)
    assert torch.allclose(split.u_k.mT @ w, split.sigma[: split.k, None] * split.v_k.mT, atol=1e-5)
    kept = (
        float(split.sigma[: split.k].double().square().sum()),
        float(exact.sigma[: exact.k].double().square().sum()),
    )
    assert kept[0] == pytest.approx(
        kept[1], abs=1e-5
    )  # k itself may differ where singular values are rounding
    apart = float(exact.sigma[exact.k - 1] - exact.sigma[exact.k]) if 0 < exact.k < min(shape) else 0.0
    if apart > 1e-2 and split.k == exact.k:
        for mine, theirs in ((split.u_k, exact.u_k), (split.v_k, exact.v_k)):
            assert float(principal_angles(mine, theirs).max()) < 1e-2  # arccos of 1 - 1e-7 is 4e-4
            assert float(torch.linalg.matrix_norm(mine - theirs @ (theirs.mT @ mine))) < 1e-4


@pytest.mark.parametrize("shape", [(400, 384), (384, 500)])
def test_large_matrices_are_split_without_a_singular_value_decomposition(shape, monkeypatch):
    w = matrix(shape, 0) / 20
    exact = principal(w, Keep("energy", 0.5))
    monkeypatch.setattr(torch.linalg, "svd", lambda *args, **kwargs: pytest.fail("decomposed"))
    split = principal(w, Keep("energy", 0.5), ordered=False)
    assert split.k == exact.k
    for mine, theirs in ((split.u_k, exact.u_c), (split.v_k, exact.v_c)):
        assert float(torch.linalg.matrix_norm(theirs.mT @ mine, 2)) < 1e-5
    assert unchanged(w, split, Keep("energy", 0.5)) and unchanged(w, exact, Keep("energy", 0.5))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), seeds, st.integers(1, 12), st.integers(0, 11))
def test_the_rest_of_a_subspace_is_the_same_without_its_complement(dimension, seed, free, taken):
    free = min(free, dimension)
    generator = torch.Generator().manual_seed(seed)
    whole = random_basis(dimension, free, generator)
    inside = random_basis(free, min(taken, free - 1), generator)
    wanted = whole @ complement(inside)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cl_complora.subspace.LARGE", 1)
        found = rest_of(whole, inside)
    assert torch.equal(rest_of(whole, inside), wanted)
    assert found.shape == wanted.shape and torch.allclose(found, wanted, atol=1e-5)


def test_faint_directions_are_decomposed_as_ever(monkeypatch):
    monkeypatch.setattr("cl_complora.subspace.LARGE", 1)
    w = torch.diag(torch.tensor([1.0, 1e-5, 0.0, 0.0]))
    for keep in (Keep("number", 2), Keep("number", 3), Keep("number", 0)):
        ordered, split = principal(w, keep), principal(w, keep, ordered=False)
        assert torch.equal(ordered.u, split.u) and torch.equal(ordered.v, split.v) and ordered.k == split.k
    nothing = principal(torch.zeros(4, 4), Keep("number", 2), ordered=False)
    assert torch.allclose(nothing.u.mT @ nothing.u, torch.eye(4), atol=1e-6) and nothing.k == 2


@settings(max_examples=100, deadline=None)
@given(shapes, seeds, st.floats(0.01, 1.0), st.integers(1, 3))
def test_a_part_of_the_spectrum_tells_whether_k_is_the_same(shape, seed, energy, room):
    sigma = torch.linalg.svdvals(matrix(shape, seed).double())
    total, full, keep = float(sigma.square().sum()), len(sigma), Keep("energy", energy)
    k = keep.rank(sigma, room)
    assert [j for j in range(max(0, full - room) + 1) if keep.gives(sigma[:j], total, full, room)] == [k]


def test_a_weight_that_is_not_finite_is_never_unchanged():
    w, keep = matrix((5, 4), 0), Keep("number", 2)
    assert not unchanged(w / 0, principal(w, keep), keep)


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.tensor([[1.0, float("nan")], [0.0, 1.0]])])
def test_principal_refuses_what_is_no_matrix(bad):
    with pytest.raises(ValueError):
        principal(bad, Keep("number", 1))


def test_keep_leaves_room_for_the_rank():
    sigma = torch.linspace(2, 1, 10)
    assert Keep("energy", 1.0).rank(sigma, room=3) == 7
    assert Keep("number", 99).rank(sigma) == 9
    assert Keep("number", 0).rank(sigma) == 0


@settings(max_examples=60, deadline=None)
@given(shapes, seeds, st.floats(0.2, 0.8), st.floats(0, 3))
def test_certificate_never_lies(shape, seed, energy, size):
    """Where it holds, a fresh decomposition finds the same subspace and the same k."""
    w, keep = matrix(shape, seed), Keep("energy", energy)
    split = principal(w, keep)
    inner = torch.randn(
        split.u_c.shape[1], split.v_c.shape[1], generator=torch.Generator().manual_seed(seed + 1)
    )
    moved = w + size * split.u_c @ inner @ split.v_c.mT
    if unchanged(moved, split, keep):
        again = principal(moved, keep)
        assert again.k == split.k
        if split.k:
            assert overlap(again.u_k, split.u_k) == pytest.approx(1, abs=1e-4)
            assert overlap(again.v_k, split.v_k) == pytest.approx(1, abs=1e-4)


def test_certificate_holds_for_small_updates_and_fails_when_directions_cross():
    sigma = torch.tensor([4.0, 3.0, 0.5, 0.2])
    u, v = (random_basis(d, 4, torch.Generator().manual_seed(d)) for d in (6, 5))
    w = u * sigma @ v.mT
    keep = Keep("number", 2)
    split = principal(w, keep)
    small = w + 0.5 * split.u_c[:, :1] @ split.v_c[:, :1].mT
    large = w + 9.0 * split.u_c[:, :1] @ split.v_c[:, :1].mT
    outside = w + 0.5 * split.u_k[:, :1] @ split.v_c[:, :1].mT
    assert unchanged(w, split, keep) and unchanged(small, split, keep)
    assert not unchanged(large, split, keep) and not unchanged(outside, split, keep)


def test_certificate_notices_that_k_moves_with_the_norm():
    w = torch.diag(torch.tensor([2.0, 1.0, 0.9, 0.1]))
    keep = Keep("energy", 0.66)
    split = principal(w, keep)
    assert split.k == 1
    # The complement grows but stays below σ_1, so the subspace holds; its share of the energy does not.
    grown = w + torch.diag(torch.tensor([0.0, 0.8, 0.8, 0.0]))
    assert not unchanged(grown, split, keep)
    assert unchanged(grown, split, Keep("number", 1))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(0, 11), seeds)
def test_complement_completes_the_basis(d, p, seed):
    p = min(p, d - 1)
    basis = random_basis(d, p, torch.Generator().manual_seed(seed))
    rest = complement(basis)
    whole = torch.cat([basis, rest], 1)
    assert whole.shape == (d, d)
    assert torch.allclose(whole.mT @ whole, torch.eye(d), atol=1e-5)


def test_orthonormal_drops_what_is_dependent():
    columns = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    basis = orthonormal(columns)
    assert basis.shape == (3, 2)
    assert torch.allclose(basis @ basis.mT @ columns, columns, atol=1e-6)
    assert orthonormal(torch.zeros(3, 2)).shape == (3, 0)


def test_overlap_and_angles():
    e = torch.eye(4)
    assert overlap(e[:, :1] + e[:, 2:3], e[:, :2]) == pytest.approx(math.sqrt(0.5))
    assert overlap(torch.zeros(4, 1), e[:, :2]) == 0
    turned = math.cos(0.3) * e[:, :1] + math.sin(0.3) * e[:, 3:]
    assert principal_angles(e[:, :2], turned).tolist() == pytest.approx([0.3], abs=1e-5)
