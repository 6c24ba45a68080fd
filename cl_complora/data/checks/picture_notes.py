"""What a reader of the results should know of how pictures were read: the range of their values, what
transparent ones were put on, and which are of one colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ..captions.retrieval_sets import CaptionPlan
from ..images.pictures import Pictures
from ..images.pixels import MAX_BYTES, hushed, open_picture
from ..images.survey import Taken, header, spread
from ..images.transparency import on_ground, opacity
from ..items import Item, files
from ..planning import Plan, Plans
from ..telling import counted, worded

# Pictures of a source whose header is looked at, and those that are decoded.
LOOKED = 5000
DECODED = 200


def picture_notes(plans: Plans, every: bool = False) -> list[str]:
    """Lines about the range and the transparency of all pictures that a scenario uses.

    Args:
        plans: of a scenario, for one seed.
        every: decode all that may be transparent or deep, not only 200 of each source.
    """
    lines = []
    for source, used in _by_source(plans):
        names = ", ".join(f"'{plan.name}'" for plan in used[:3]) + (" …" if len(used) > 3 else "")
        items = {item.key: item for plan in used for item in chosen_items(plan)}.values()
        stored = sorted(items, key=lambda item: item.order)  # no part of a table is read twice
        lines += [f"{names}: {line}" for line in source_notes(source, stored, every)]
    return lines


def chosen_items(plan: Plan | CaptionPlan) -> tuple[Item, ...]:
    """Every picture that a plan uses."""
    return (*plan.train, *plan.validation, *plan.test) if isinstance(plan, Plan) else plan.test


def _by_source(plans: Plans) -> Iterator[tuple[Pictures, list[Plan | CaptionPlan]]]:
    used: dict[int, tuple[Pictures, list[Plan | CaptionPlan]]] = {}
    for plan in (*plans, *plans.beside):
        source = getattr(
            plan.source, "source", plan.source
        )  # all pictures, also where broken ones are left out
        if isinstance(source, Pictures):
            used.setdefault(id(source), (source, []))[1].append(plan)
    yield from used.values()


def source_notes(source: Pictures, items: Sequence[Item], every: bool = False) -> list[str]:
    """As :func:`picture_notes`, of some pictures of one source."""
    present = files(items)
    if not present:
        return []
    looked = source.concerned(present)
    looked = looked if every else spread(looked, LOOKED)
    with hushed():
        headers = {item.key: header(partial(source.stored, item)) for item in looked}
    deep = [item for item in looked if headers[item.key].deep]
    layered = [item for item in looked if headers[item.key].transparent]
    lines = []
    taken = source.taken(thorough=True) if deep else None
    if taken is not None:
        lines.append(_range_line(source, taken, len(deep), len(present)))
    elif not deep and source.range is not None:
        lines.append(f"range: is not used, no picture of {len(present)} has more than 8 bits a channel")
    chosen = list(dict.fromkeys((*deep, *layered)))
    seen = [(item, _seen(source, item)) for item in (chosen if every else spread(chosen, DECODED))]
    return lines + _transparency_lines(source, [(item, found) for item, found in seen if found])


def _range_line(source: Pictures, taken: Taken, deep: int, present: int) -> str:
    told = f"stored values from {source.values()} become 0 to 255"
    pictures = counted(taken.pictures, f"{taken.part} picture")
    lie = f"of {pictures} lie from {taken.low:.10g} to {taken.high:.10g}"
    if source.range is None:
        told += f": the values {lie} (range: on the source for another)"
    else:
        told += ", as range: says"
        beyond = taken.high > source.values().high or taken.low < source.values().low
        told += f"; those {lie}, and what lies beyond is clipped" if beyond else ""
    if deep < present:
        stay = worded(present - deep, "has 8 bits and stays as it is", "have 8 bits and stay as they are")
        told += f"; {present - deep} of {present} pictures {stay}"
    return told


@dataclass(frozen=True)
class _Seen:
    """A decoded picture: its smallest and largest alpha, and whether it is of one colour."""

    least: int
    most: int
    flat: bool


def _seen(source: Pictures, item: Item) -> _Seen | None:
    conversion = source.conversion
    try:
        with source.stored(item) as file:
            content = file.read(MAX_BYTES)
        with open_picture(content) as image:
            shallow = conversion.shallow(image, content)
            least, most = opacity(shallow)
            extrema = on_ground(shallow, conversion.background).getextrema()
            return _Seen(least, most, all(low == high for low, high in extrema))
    except Exception:  # told by whoever loads it
        return None


def _transparency_lines(source: Pictures, seen: Sequence[tuple[Item, _Seen]]) -> list[str]:
    put = [item for item, found in seen if found.least < 255 and found.most > 0]
    through = [item for item, found in seen if found.most == 0]
    flat = [item for item, found in seen if found.flat]
    of = f"of {len(seen)} looked at"
    one, more = f"picture {of} is", f"pictures {of} are"
    lines = []
    if put:
        lines.append(
            f"{counted(len(put), one, more)} transparent in places and put on {source.background} "
            f"(background: on the source for another), such as {put[0].key}"
        )
    elif source.background != "white":
        lines.append("background: is not used, no picture is transparent in places")
    if through:
        lines.append(
            f"{counted(len(through), one, more)} transparent throughout and taken without alpha, such as "
            f"{through[0].key}"
        )
    if flat:
        on = f" on {source.background}" if put else ""
        lines.append(f"warning: {counted(len(flat), one, more)} of one colour{on}: {_some(flat)}")
    return lines


def _some(items: Sequence[Item]) -> str:
    return ", ".join(item.key for item in items[:3]) + (" …" if len(items) > 3 else "")
