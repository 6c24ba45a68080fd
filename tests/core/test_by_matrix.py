"""Large matrices are decomposed side by side, each by one thread: same bits, same order, same settings
after."""

from __future__ import annotations

import threading

import pytest
import torch

from cl_complora.run.threads import computing_with
from cl_complora.subspace import LARGE, Keep, by_matrix, principal

LARGE_SHAPE = (LARGE, LARGE + 5)


def matrices(shape: tuple[int, int], count: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def shapes(items: list[torch.Tensor]) -> list[torch.Size]:
    return [item.shape for item in items]


def test_threads_change_no_bit():
    weights = matrices(LARGE_SHAPE)

    def decompose(threads: int) -> list[torch.Tensor]:
        with computing_with(threads):
            return by_matrix(
                lambda w: principal(w, Keep("energy", 0.5), ordered=False).u, weights, shapes(weights)
            )

    one, three = decompose(1), decompose(3)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))
    assert not torch.equal(one[0], one[1])


def test_a_single_matrix_is_computed_as_among_others():
    """A resumed run decomposes only what the interrupted one did before a task, which may be one matrix."""
    weights = matrices((3 * LARGE, LARGE))

    def decompose(some: list[torch.Tensor]) -> list[torch.Tensor]:
        with computing_with(4):
            return by_matrix(
                lambda w: principal(w, Keep("energy", 0.5), ordered=False).v, some, shapes(weights)
            )

    assert torch.equal(decompose(weights)[0], decompose(weights[:1])[0])
    assert by_matrix(lambda w: w, [], shapes(weights)) == []


@pytest.mark.parametrize(
    ("shape", "threads", "aside"),
    [(LARGE_SHAPE, 2, True), ((LARGE - 1, 2 * LARGE), 2, False), (LARGE_SHAPE, 1, False)],
)
def test_only_large_ones_leave_the_thread(shape, threads, aside):
    items = matrices(shape)
    with computing_with(threads):
        seen = by_matrix(
            lambda w: (threading.get_ident(), torch.is_grad_enabled(), torch.get_num_threads()),
            items,
            shapes(items),
        )
        assert torch.get_num_threads() == threads
    idents, grads, counts = zip(*seen, strict=True)
    assert (threading.get_ident() not in idents) == aside
    assert not any(grads)
    assert set(counts) == {1 if aside else threads}


def test_results_stand_in_the_order_of_the_items():
    later = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert later.wait(30)  # so that the second ends before the first
        later.set()
        return number

    with computing_with(2):
        assert by_matrix(work, [0, 1], [LARGE_SHAPE] * 2) == [0, 1]


def test_an_error_reaches_the_caller_and_the_threads_are_as_before():
    weights = matrices(LARGE_SHAPE)
    weights[2][0, 0] = torch.nan
    with computing_with(2):
        with pytest.raises(ValueError, match="NaN"):
            by_matrix(lambda w: principal(w, Keep("energy", 0.5)), weights, shapes(weights))
        assert torch.get_num_threads() == 2
        assert torch.is_grad_enabled()
