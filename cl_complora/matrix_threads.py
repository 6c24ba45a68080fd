"""Decompositions of many large matrices, as many at a time as there are threads.

LAPACK splits the eigenproblem of one matrix of some hundred rows over a few threads at best; of a hundred
matrices every thread takes one. Each is computed by one thread, so that the number of threads changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from .subspace import LARGE

Item = TypeVar("Item")
Result = TypeVar("Result")


def by_matrix(
    work: Callable[[Item], Result], items: Sequence[Item], shapes: Iterable[Sequence[int]]
) -> list[Result]:
    """``[work(item) for item in items]`` without gradients, several at a time where that pays.

    Args:
        work: reads what others may read meanwhile, and writes nothing that they read.
        items: what it is called with.
        shapes: of the matrices behind them; where none has :data:`~cl_complora.subspace.LARGE` rows and
            columns, one follows the other.

    Raises:
        Exception: the first that ``work`` raised, in the order of the items.
    """
    threads = torch.get_num_threads()
    large = any(min(shape) >= LARGE for shape in shapes)
    with torch.no_grad():
        if not large or threads == 1 or len(items) < 2:
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
