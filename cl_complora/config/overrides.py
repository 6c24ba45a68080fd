"""``key.path=value``: settings given beside the files, where they belong and how they are put in place."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..errors import UserError
from .faults import sections, suggest
from .key_paths import key_paths, meant
from .scenario import Scenario
from .strategy import Strategy
from .which_file import SCHEMAS
from .yaml_lines import KeyPath, Malformed, dotted, parse, printable


class NoSuchPlace(Exception):
    """A key path leads nowhere in the data."""


class OfOption(str):
    """A ``key.path=value`` override that another option of the command line stands for.

    Attributes:
        option: as the user wrote it (``--model ViT-B-32``).
    """

    option: str

    def __new__(cls, override: str, option: str = "") -> OfOption:
        made = super().__new__(cls, override)
        made.option = option
        return made


def written(override: str) -> str:
    """How an override was given on the command line."""
    return printable(override.option) if isinstance(override, OfOption) else f"--set {printable(override)}"


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sort ``key.path=value`` settings into those of the scenario and those of the strategy by their first
    key.

    A prefix ``scenario.`` or ``strategy.`` decides where both have the key.

    Raises:
        UserError: for a key that neither has or that both have, and for one that is set twice.
    """
    split: dict[str, list[str]] = {"scenario": [], "strategy": []}
    for override in overrides:
        (first, *rest), _ = parts(override)
        kinds = (
            [first] if first in split and rest else [k for k, s in SCHEMAS.items() if first in s.model_fields]
        )
        if not kinds:
            if first == "seed" and not rest:
                said = "the seed of a run is said with --seed, and those of a comparison with --seeds"
                raise _bad_override(override, f"unknown key; {said}")
            known = list(dict.fromkeys(key for schema in SCHEMAS.values() for key in schema.model_fields))
            near = meant(".".join([first, *rest]), key_paths(*SCHEMAS.values()))
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else suggest(first, known)
            raise _bad_override(
                override, f"unknown key{hint}{' ' if hint else '; '}allowed: {', '.join(known)}"
            )
        if len(kinds) > 1:
            raise _bad_override(override, f"write scenario.{first} or strategy.{first}: both have this key")
        split[kinds[0]].append(override)
    for overrides_of_one in split.values():
        _refuse_twice(overrides_of_one)
    return split["scenario"], split["strategy"]


def refuse_what_a_run_does_not_read(for_scenario: Sequence[str], for_strategy: Sequence[str]) -> None:
    """Refuse settings that only a comparison has a use for.

    Raises:
        UserError: for the scenario's ``seeds`` and the strategy's ``sweep``.
    """
    _refuse(for_scenario, "scenario", "seeds", "has no effect in a run, whose seed is said with --seed")
    _refuse(for_strategy, "strategy", "sweep", "has no effect in a run, which sweeps nothing")


def refuse_seeds_twice(for_scenario: Sequence[str]) -> None:
    """Refuse the scenario's ``seeds`` where they are said otherwise as well.

    Raises:
        UserError: naming both.
    """
    _refuse(for_scenario, "scenario", "seeds", "has no effect beside --seeds; leave one of the two out")


def refuse_measure(for_scenario: Sequence[str]) -> None:
    """Refuse the scenario's ``measure`` where everything is measured on validation shots.

    Raises:
        UserError: naming it.
    """
    why = "has no effect: settings are chosen on validation shots"
    _refuse(for_scenario, "scenario", "measure", why)


def _refuse(overrides: Sequence[str], kind: str, section: str, why: str) -> None:
    for override in overrides:
        if is_within(override, kind, section):
            raise _bad_override(override, why)


def set_twice(one: str, other: str) -> UserError:
    """What is told where two say the same setting, and one would undo the other without a word."""
    return UserError(f"{one} and {other}: the same is set twice; leave one of the two out")


def lasting(overrides: Sequence[str]) -> list[str]:
    """Overrides without those that a later one undoes: as few as say the same, fit for a command line."""
    undone = {place for place, _ in _undone(overrides)}
    return [text for place, text in enumerate(overrides) if place not in undone]


def _refuse_twice(overrides: Sequence[str]) -> None:
    """Refuse a setting that a later one would undo without a word."""
    for place, text in _undone(overrides):
        option = "settings" if isinstance(text, OfOption) else "--set"
        raise set_twice(f"{option}: {printable(overrides[place])}", printable(text))


def _undone(overrides: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Places of overrides of which a later one, or one of the section that they are in, leaves nothing, with
    that one."""
    before: list[tuple[str, list[str]]] = []
    for text in overrides:
        kind, steps = _place(text)
        for place, (other_kind, other) in enumerate(before):
            if other[: len(steps)] == steps and not (kind and other_kind and kind != other_kind):
                yield place, text
        before.append((kind, steps))


def _place(override: str) -> tuple[str, list[str]]:
    """``scenario``, ``strategy`` or nothing, as a key begins, and its steps."""
    steps, _ = parts(override)
    prefixed = len(steps) > 1 and steps[0] in SCHEMAS
    return (steps[0], steps[1:]) if prefixed else ("", steps)


def as_overrides(settings: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """Settings as ``key.path=value`` texts, also from a mapping of key paths, or of sections, to values.

    Raises:
        UserError: for a value that no YAML file could hold.
    """
    if isinstance(settings, str):
        return [settings]
    if not isinstance(settings, Mapping):
        return list(settings)
    found = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found += as_overrides({f"{key}.{name}": part for name, part in value.items()})
            continue
        try:
            found.append(f"{key}={_as_yaml(value)}")
        except (TypeError, ValueError):
            raise UserError(f"settings: {key}: must be a plain value, got {type(value).__name__}") from None
    return found


def _as_yaml(value: Any) -> str:
    """JSON, which is YAML, but for the numbers that it does not know."""
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    return json.dumps(str(value) if isinstance(value, Path) else value, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Paths, tuples within and numpy's numbers."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError


def apply_overrides(data: dict, overrides: Sequence[str]) -> None:
    """Apply ``key.path=value`` settings to plain data in place."""
    for override in overrides:
        put_override(data, {}, override)


def _bad_override(override: str, problem: str) -> UserError:
    return UserError(f"{written(override)}: {problem}")


def parts(override: str) -> tuple[list[str], str]:
    """Steps and value of ``key.path=value``."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise _bad_override(override, "must have the form key.path=value, such as optimiser.lr=1e-3")
    return steps_of(key), text


def steps_of(key: str) -> list[str]:
    """Steps of ``tasks.0.name``, also written ``tasks[0].name`` as in messages."""
    return re.sub(r"\[(\d+)\]", r".\1", key).split(".")


def plain_key(key: str, kind: str) -> str:
    """The one spelling of a key path within a file of a kind: ``strategy.regularisers[0].strength`` is
    ``regularisers.0.strength``."""
    return ".".join(_within(steps_of(key), kind))


def key_of(override: str, kind: str) -> str:
    """The :func:`plain_key` of ``key.path=value``."""
    return ".".join(_within(parts(override)[0], kind))


def is_within(override: str, kind: str, section: str) -> bool:
    """Whether ``key.path=value`` sets a section of a file of a kind, or something in it."""
    return key_of(override, kind).partition(".")[0] == section


def _within(steps: list[str], kind: str) -> list[str]:
    return steps[1:] if steps[0] == kind and len(steps) > 1 else steps


def put_override(data: dict, origins: dict[KeyPath, int | str], override: str, kind: str = "") -> None:
    """Set what one override says, in data as read from a file of a kind, and note where it came from."""
    steps, text = parts(override)
    steps = _within(steps, kind)
    try:
        value, _ = parse(text)
        path, made = put(data, steps, value, SCHEMAS.get(kind))
    except Malformed as error:
        raise _bad_override(override, error.problem) from None
    except NoSuchPlace as error:
        raise _bad_override(override, str(error)) from None
    for place in [place for place in origins if place[: len(path)] == path]:
        del origins[place]
    for place in (*made, path):
        origins[place] = override


def put(
    data: dict, steps: Sequence[str], value: Any, schema: type[Scenario] | type[Strategy] | None = None
) -> tuple[KeyPath, list[KeyPath]]:
    """Set the value at a key path; returns the path with its indices as numbers, and the sections it had to
    make: where there is none, or, by a schema, where a plain value stands that may be a section (``shots``).
    """
    target: Any = data
    path: KeyPath = ()
    made: list[KeyPath] = []
    for position, step in enumerate(steps):
        if isinstance(target, list):
            if not (step.isascii() and step.isdigit() and len(step) < 10 and int(step) < len(target)):
                allowed = f"an index from 0 to {len(target) - 1}" if target else "left out: the list is empty"
                raise NoSuchPlace(f"{printable(step)!r} must be {allowed}")
            index: str | int = int(step)
        elif isinstance(target, dict):
            index = step
        else:
            raise NoSuchPlace(f"{dotted(path)} is a value, not a section")
        path = (*path, index)
        if position == len(steps) - 1:
            target[index] = value
        elif isinstance(target, dict) and (target.get(index) is None or _plain_section(target, path, schema)):
            if steps[position + 1].isdigit():
                raise NoSuchPlace(f"{dotted(path)} has no entry {steps[position + 1]}: it is not in the file")
            # An absent or empty section is made; the schema says whether it may exist.
            target[index] = {}
            made.append(path)
        target = target[index]
    return path, made


def _plain_section(target: dict, path: KeyPath, schema: type[Scenario] | type[Strategy] | None) -> bool:
    """Whether a plain value stands at a key path where the schema would take a section as well."""
    if schema is None or isinstance(target[path[-1]], dict | list):
        return False
    inside: list[type[BaseModel]] = [schema]
    for step in path:
        if not inside:
            return True  # within settings that are free, such as a plugin's
        if not isinstance(step, int):
            fields = [one.model_fields[step] for one in inside if step in one.model_fields]
            inside = [one for field in fields for one in sections(field.annotation)]
    return bool(inside)
