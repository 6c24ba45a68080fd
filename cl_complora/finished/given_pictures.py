"""How pictures that a run never saw are read: as its own were, unless they store values of quite another
range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from ..config.scenario import Task, ZeroShotSet
from ..config.sources import PictureSource
from ..data.images.pixels import Conversion
from ..data.images.survey import Taken, taken_of
from ..data.images.transparency import WHITE, rgb_of
from ..data.images.value_range import ValueRange
from ..data.telling import counted
from ..files import open_file
from .states import State

# Values that lie beyond the run's range by more than this share of it are no brighter pictures of its kind.
# By less, they are clipped, as the run's own are that no sample met.
FAR = 0.25
# Two bits fewer than the run's: no picture of such a set is brighter than a quarter.
DARK = 0.25


def conversion_of(
    state: State,
    paths: Sequence[Path],
    values: ValueRange | None = None,
    tell: Callable[[str], None] = lambda line: None,
    task: str | None = None,
) -> Conversion:
    """How pictures become RGB of eight bits.

    Args:
        state: of the run.
        paths: the pictures.
        values: what becomes black and white, of those of more than eight bits; by default what the run
            learned with, or the range of these pictures, where that is quite another one.
        tell: given a sentence where the run's range is not taken, or does not suit the pictures; once, and
            only where one has more than eight bits; and one where the tasks have several backgrounds.
        task: a task or zero-shot set, as whose pictures they are read; as those of all tasks by default.
    """
    sets = _asked(state, task)
    ground, several = background_of(sets)
    if several:
        tell(
            "the tasks of this run put transparent pictures on several backgrounds; those given are put on"
            " white (--task takes that of one)"
        )

    @cache
    def found() -> ValueRange:
        if values is not None:
            return values
        taken = taken_of([partial(open_file, path) for path in paths], "given")
        if taken is None:
            raise ValueError("its values are of an unknown range")
        chosen, sentence = _chosen(state, sets, taken)
        if sentence:
            tell(sentence)
        return chosen

    return Conversion(ground, values=found)


def background_of(sets: Sequence[Task | ZeroShotSet]) -> tuple[tuple[int, int, int], bool]:
    """What tasks and sets put transparent pictures on, white where they have several or none; and whether
    they have several."""
    sources = [one.source for one in sets]
    grounds = {rgb_of(source.background) for source in sources if isinstance(source, PictureSource)}
    return next(iter(grounds)) if len(grounds) == 1 else WHITE, len(grounds) > 1


def read_differently(state: State, tasks: Sequence[str]) -> bool:
    """Whether pictures of some tasks are read in several ways: put on other backgrounds, or with other stored
    values as black and white."""
    sets = [one for one in state.scenario.value.tasks if one.name in tasks]
    recorded = state.config.get("ranges") or {}
    return background_of(sets)[1] or len({tuple(recorded.get(name) or ()) for name in tasks}) > 1


def _asked(state: State, task: str | None) -> Sequence[Task | ZeroShotSet]:
    """The task or set of a name, or all tasks, also where a task is a part of one in the scenario."""
    scenario = state.scenario.value
    named = [one for one in (*scenario.tasks, *scenario.zero_shot) if one.name == task]
    return named or scenario.tasks


def _chosen(state: State, sets: Sequence[Task | ZeroShotSet], taken: Taken) -> tuple[ValueRange, str]:
    """The range to read with, and what to say of it; nothing where it is the run's and suits."""
    recorded = state.config.get("ranges") or {}
    ranges = {tuple(recorded[one.name]) for one in sets if one.name in recorded}
    own, another = taken.values, "(--range for another)"
    pictures = counted(taken.pictures, "given picture")
    lie = f"those of {pictures} lie from {taken.low:.10g} to {taken.high:.10g}"
    anew = f"stored values from {own} become 0 to 255: {lie}"
    if len(ranges) != 1:
        why = "the tasks of this run have several ranges" if ranges else "the run's own pictures have 8 bits"
        return own, f"{anew}, and {why} {another}"
    learned = ValueRange.of_setting(*ranges)
    width = learned.high - learned.low
    beyond = max(learned.low - taken.low, taken.high - learned.high) / width
    fractions = not own.whole and own.high <= 1 < width / 2
    # A range of the scenario's own says what is to be clipped.
    asked_for = any(isinstance(t.source, PictureSource) and t.source.range is not None for t in sets)
    if (beyond > FAR and not asked_for) or fractions:
        return own, f"{anew}, and not from {learned}, as this run learned; that is quite another {another}"
    kept = f"stored values from {learned} become 0 to 255, as this run learned; {lie}"
    if beyond > 0:
        return learned, f"{kept}, and what lies beyond is clipped {another}"
    if taken.high - learned.low < DARK * width:
        way = own.bits or f"{own.low:.10g},{own.high:.10g}"
        dark = "and become dark; if that is all that such pictures use, give"
        return learned, f"{kept}, {dark} --range {way}"
    return learned, ""
