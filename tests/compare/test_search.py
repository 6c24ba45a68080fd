"""The search of tune on grids whose best is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cl_complora.compare.search import Axis, Place, search


class Hill:
    """A grid with one top; every place is nobody's twice."""

    def __init__(self, top: Place, most: int = 8, enough: int = 10_000) -> None:
        self.top, self.most, self.enough = top, most, enough
        self.measured: list[Place] = []

    def exists(self, place: Place) -> bool:
        return all(abs(level) <= self.most for level in place)

    def measure(self, places: list[Place]) -> bool:
        assert not set(places) & set(self.measured) and all(map(self.exists, places))
        self.measured += places[: self.enough - len(self.measured)]
        return len(self.measured) < self.enough

    def best(self) -> Place:
        return min(
            self.measured, key=lambda place: sum(abs(a - b) for a, b in zip(place, self.top, strict=True))
        )

    def climb(self, axes: list[Axis]) -> bool:
        return search(axes, (0,) * len(self.top), self.exists, self.measure, self.best)


SINGLE = [Axis("a", (0,), (2, 1)), Axis("b", (1,))]


@given(st.tuples(st.integers(-8, 8), st.integers(-8, 8)))
def test_the_top_is_found_wherever_it_lies(top):
    hill = Hill(top)
    assert hill.climb(SINGLE) and hill.best() == top
    # Two neighbours of every place on the way, and no more.
    assert len(hill.measured) <= 2 * (8 + 8) + 4


def test_a_grid_is_extended_as_long_as_its_best_lies_at_an_edge():
    hill = Hill((5, 0))
    assert hill.climb(SINGLE[:1])
    assert [place[0] for place in hill.measured] == [0, -2, 2, 4, 6, 3, 5]


def test_coordinates_that_move_together_keep_their_distance():
    hill = Hill((4, 4))
    assert hill.climb([Axis("both", (0, 1), (2, 1))]) and hill.best() == (4, 4)
    assert all(a == b for a, b in hill.measured)


@pytest.mark.parametrize("enough", [1, 2, 5])
def test_it_ends_when_time_does(enough):
    hill = Hill((8, 8), enough=enough)
    assert not hill.climb(SINGLE) and len(hill.measured) == enough
