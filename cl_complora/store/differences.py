"""What of a run's settings differs from what is asked for now, in the words of a YAML file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..config.yaml_lines import shown
from ..errors import printable

# More of them are counted.
_TOLD = 4
_SPLITS = "splits."


class Difference(NamedTuple):
    """One value of which two records say different things."""

    key: str
    before: Any
    now: Any


def differences(before: Any, now: Any, key: str = "") -> Iterator[Difference]:
    """Every value that differs, in the order of what is now; lists of other lengths are one."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*now, *(n for n in before if n not in now)]:
            yield from differences(before.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            yield from differences(*pair, f"{key}[{index}]")
    elif before != now:
        yield Difference(key, before, now)


def told_differences(found: list[Difference]) -> str:
    """``the run was made with shots = 3, now it is 2; …``; other pictures are told where nothing else
    differs, which would be why.

    Args:
        found: one at least.
    """
    settings = [one for one in found if not one.key.startswith(_SPLITS)]
    if not settings:
        names = ", ".join(f"'{one.key.removeprefix(_SPLITS)}'" for one in found)
        return f"the pictures of {names}, or their division, are others than when this run was made"
    (first, *more), left_out = settings[:_TOLD], len(settings) - _TOLD
    told = [f"this run was made with {_pair(first)}", *(f"with {_pair(one)}" for one in more)]
    if left_out > 0:
        told.append(f"and {left_out} more that differ")
    return "; ".join(told)


def _pair(one: Difference) -> str:
    before, now = (_spelt(value) for value in (one.before, one.now))
    return f"{one.key} = {before}, now it is {now}"


def _spelt(value: Any) -> str:
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return printable("{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}", 60)
    return shown(value)
