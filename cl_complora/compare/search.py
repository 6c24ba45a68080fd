"""Coordinate search on a grid: for few, dear and noisy measurements, of which the next depends on the last.

One axis after the other, the neighbours of the best point so far are measured until it has both of them: so a
grid is extended as long as its best lies at an edge, and nothing far from the best is paid for. An axis may
move several coordinates at once (all rates by one factor) and be walked in coarse steps before fine ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Place = tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """A direction of the search.

    Attributes:
        name: for people.
        moves: coordinates that it moves together.
        strides: lengths of its steps, coarse to fine; later rounds use only the finest.
    """

    name: str
    moves: tuple[int, ...]
    strides: tuple[int, ...] = (1,)

    def beside(self, place: Place, stride: int) -> list[Place]:
        """The two neighbours of a place."""
        return [
            tuple(level + step if index in self.moves else level for index, level in enumerate(place))
            for step in (-stride, stride)
        ]


def search(
    axes: Sequence[Axis],
    start: Place,
    exists: Callable[[Place], bool],
    measure: Callable[[list[Place]], bool],
    best: Callable[[], Place],
) -> bool:
    """Go to a place that is the best of all its neighbours.

    Args:
        axes: in the order of what they promise.
        start: measured first.
        exists: whether the grid has a place.
        measure: measures places that were not measured before; False where time did not suffice for all.
        best: the best of the measured places.

    Returns:
        Whether the search came to its end; False where time ran out.
    """
    seen = {start}
    if not measure([start]):
        return False
    rounds = 0
    while True:
        before = len(seen)
        for axis in axes:
            for stride in axis.strides if rounds == 0 else axis.strides[-1:]:
                while new := _new(axis.beside(best(), stride), seen, exists):
                    seen.update(new)
                    if not measure(new):
                        return False
        if len(seen) == before:
            return True
        rounds += 1


def _new(places: Iterable[Place], seen: set[Place], exists: Callable[[Place], bool]) -> list[Place]:
    return [place for place in places if place not in seen and exists(place)]
