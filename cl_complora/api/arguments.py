"""What the arguments of functions may be: whatever cannot work is refused by name and value, before
anything is read or begun."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, printable
from ..run.devices import known_device

if TYPE_CHECKING:
    from ..progress import Progress


def refused(name: str, allowed: str, given: object) -> UserError:
    """What is told of an argument that cannot work.

    Args:
        name: of the argument.
        allowed: what it must be.
        given: what it is.
    """
    return UserError(f"{name}: must be {allowed}, got {printable(repr(given))}")


def whole(name: str, given: object, least: int) -> int:
    """A whole number; numpy's count as such.

    Raises:
        UserError: for anything else, and for one below the least.
    """
    if not isinstance(given, Integral) or isinstance(given, bool) or given < least:
        raise refused(name, f"a whole number, at least {least}", given)
    return int(given)


def number(name: str, given: object) -> float:
    """A number; numpy's count as such.

    Raises:
        UserError: for anything else, and for what is not finite.
    """
    if not isinstance(given, Real) or isinstance(given, bool):
        raise refused(name, "a number", given)
    if not math.isfinite(given):
        raise UserError(f"{name} {given:g}: must be a finite number")
    return int(given) if isinstance(given, Integral) else float(given)


def seconds(name: str, given: object) -> float:
    """A span of time; one that never ends is one too.

    Raises:
        UserError: for anything else.
    """
    if not isinstance(given, Real) or isinstance(given, bool) or not given >= 0:  # NaN is not
        raise refused(name, "a number of seconds, at least 0", given)
    return float(given)


def flag(name: str, given: object) -> bool:
    """True or False; numpy's count as such.

    Raises:
        UserError: for anything else: ``"no"`` would count as True.
    """
    import numpy as np

    if not isinstance(given, bool | np.bool_):
        raise refused(name, "True or False", given)
    return bool(given)


def text(name: str, given: object) -> str:
    """A text.

    Raises:
        UserError: for anything else.
    """
    if not isinstance(given, str):
        raise refused(name, "a text", given)
    return given


def texts(name: str, given: object) -> list[str]:
    """Texts; one alone is a list of one.

    Raises:
        UserError: for anything else.
    """
    found = [given] if isinstance(given, str) else listed(given)
    if found is None or not all(isinstance(one, str) for one in found):
        raise refused(name, "texts", given)
    return found


def names(name: str, given: object) -> list[str]:
    """Names in a list: one text might be several with commas, as on the command line.

    Raises:
        UserError: for anything else.
    """
    if isinstance(given, str):
        raise refused(name, "a list of names", given)
    return texts(name, given)


def path(name: str, given: object) -> Path:
    """A path.

    Raises:
        UserError: for anything else.
    """
    place = fspath(given) if isinstance(given, str | PathLike) else None
    if not isinstance(place, str) or "\0" in place:
        raise refused(name, "a path", given)
    return Path(place)


def device(name: str, given: object) -> str:
    """The name of a device, whether it is there or not.

    Raises:
        UserError: for anything else.
    """
    if not isinstance(given, str):
        raise refused(name, "a text such as 'auto', 'cpu', 'cuda' or 'cuda:1'", given)
    known_device(given)
    return given


def seed(name: str, given: object) -> int:
    """A seed.

    Raises:
        UserError: for anything but a whole number from 0 to 2³² − 1.
    """
    if not isinstance(given, Integral) or isinstance(given, bool) or not 0 <= given < 2**32:
        raise refused(name, f"a whole number from 0 to {2**32 - 1}", given)
    return int(given)


def seeds(name: str, given: object, may_be_none: bool = False) -> tuple[int, ...]:
    """Seeds, each of them once: a run that counts twice makes spreads too small.

    Args:
        name: of the argument.
        given: what it is.
        may_be_none: whether the list may be empty.

    Raises:
        UserError: for anything else, also for a number alone, which might be how many.
    """
    found = listed(given)
    chosen = () if found is None else tuple(seed(name, one) for one in found)
    if found is None or len(set(chosen)) < len(chosen) or not (chosen or may_be_none):
        raise refused(name, "a list of different whole numbers such as [0, 1, 2]", given)
    return chosen


def named(given: object, kind: str) -> str:
    """A name as it is; a path so that it cannot be taken for a name.

    Raises:
        UserError: for what is neither.
    """
    if isinstance(given, str):
        return given
    if not isinstance(given, PathLike):
        raise UserError(f"{kind}: must be a name or a path, got {type(given).__name__}")
    place = str(path(kind, given))
    return place if place.endswith((".yaml", ".yml")) or Path(place).parent != Path(".") else f"./{place}"


def methods(given: object) -> tuple[str, ...]:
    """The strategies of a comparison.

    Raises:
        UserError: for anything but names and paths.
    """
    found = listed(given)
    if not found:
        raise refused("strategies", "a list of names or paths", given)
    return tuple(named(one, "strategies") for one in found)


def swept(
    given: Mapping[str, Sequence[float]] | bool, short: Mapping[str, str]
) -> dict[str, list[float]] | None:
    """What a comparison sweeps over: key path → values; nothing for each method's own, None for no sweep.

    Args:
        given: the argument.
        short: abbreviation → key path.

    Raises:
        UserError: for what is neither a mapping of keys to numbers nor True or False.
    """
    from ..config.overrides import plain_key

    if isinstance(given, bool):
        return {} if given else None
    if not isinstance(given, Mapping) or not given:
        raise refused("sweep", "a mapping such as {'lr': [1e-4, 3e-4]}, True or False", given)
    found: dict[str, list[float]] = {}
    for key, values in given.items():
        name = f"sweep[{key!r}]"
        if not isinstance(key, str):
            raise UserError(f"{name}: the key must be a text such as 'lr'")
        numbers = listed(values)
        if not numbers:
            raise refused(name, "a list of numbers such as [1e-4, 3e-4]", values)
        path_of_key = plain_key(short.get(key, key), "strategy")
        if path_of_key in found:
            raise UserError(f"{name}: {path_of_key} is swept twice; give all of its values at once")
        found[path_of_key] = [number(name, one) for one in numbers]
        if len(set(found[path_of_key])) < len(numbers):
            raise UserError(f"{name}: a value stands twice; each may stand once")
    return found


def shown_by(given: object) -> Progress | bool | None:
    """Who is told what a run does.

    Raises:
        UserError: for what cannot be told all of it.
    """
    from ..progress import Progress

    told = [name for name in vars(Progress) if not name.startswith("_")]
    does_all = all(callable(getattr(given, one, None)) for one in told)
    # A class has them, too, and is no object that they can be called on.
    if not isinstance(given, bool | None) and (isinstance(given, type) or not does_all):
        raise refused("progress", f"True, False, None or an object with the methods {', '.join(told)}", given)
    return given


def listed(given: Any) -> list[Any] | None:
    """The members of a list, an array or the like; None for what has none, and for a text."""
    try:
        return None if isinstance(given, str | bytes) else list(given)
    except TypeError:
        return None
