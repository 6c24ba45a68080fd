"""Scenario and strategy files to validated settings; every fault is told with file, line, key and what is
allowed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import MOST_FAULTS, UserError
from .catalog import find, shipped
from .faults import Fault, closest, faults, sections, suggest
from .key_paths import key_paths, meant
from .scenario import Scenario
from .strategy import UNTRAINED, Strategy
from .which_file import SCHEMAS, kind_of, own_keys, with_its_file
from .yaml_lines import KeyPath, Malformed, dotted, parse, printable, read_yaml

Settings = TypeVar("Settings", Scenario, Strategy)

_PLACES = {
    "scenario": "a scenario is the first argument of 'cl-complora run'",
    "strategy": "a strategy is given with --strategy",
}


@dataclass(frozen=True)
class Located(Generic[Settings]):
    """Validated settings with the place that each key came from.

    Attributes:
        value: the settings.
        file: as shown to the user.
        origins: key path → line (1-based), or the ``key=value`` override that it came from.
    """

    value: Settings
    file: str
    origins: dict[KeyPath, int | str]

    def fault(self, path: KeyPath, message: str) -> str:
        """``file:line: key: message`` for a key path, or ``--set key=value: message``."""
        return _told(Fault(path, message), self.file, self.origins)

    @property
    def folder(self) -> Path:
        """Folder that relative paths in the file start from."""
        folder = Path(self.file).parent
        return folder if folder.is_dir() else Path(".")


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


def _written(override: str) -> str:
    """How an override was given on the command line."""
    return printable(override.option) if isinstance(override, OfOption) else f"--set {printable(override)}"


def load_scenario(name_or_path: str, overrides: Sequence[str] = ()) -> Located[Scenario]:
    """Read a scenario by name (``embedded``) or path; ``overrides`` are ``key.path=value`` with YAML
    values."""
    return _load("scenario", name_or_path, Scenario, overrides)


def load_strategy(name_or_path: str, overrides: Sequence[str] = ()) -> Located[Strategy]:
    """Read a strategy by name (``complora``) or path; ``overrides`` as in :func:`load_scenario`."""
    return _load("strategy", name_or_path, Strategy, overrides)


def _load(
    kind: str, name_or_path: str, schema: type[Settings], overrides: Sequence[str]
) -> Located[Settings]:
    other = "strategy" if kind == "scenario" else "scenario"
    if name_or_path in shipped(other) and name_or_path not in shipped(kind):
        raise UserError(f"'{name_or_path}' is a {other}, a {kind} is expected here; {_PLACES[other]}")
    path = find(kind, name_or_path)
    file = str(path)
    data, lines = read_yaml(path, file)
    if not isinstance(data, dict):
        found = (
            "the file is empty"
            if data is None
            else f"got a {'list' if isinstance(data, list) else 'single value'}"
        )
        raise UserError(f"{file}:{lines.get((), 1)}: a {kind} file must hold a mapping (key: value), {found}")
    if kind_of(data) == other:
        key = next(key for key in data if closest(key, own_keys(other)))
        where = f"{file}:{lines[key,]}: {printable(key)}"
        raise UserError(f"{where}: this is a {other}, a {kind} is expected here; {_PLACES[other]}")
    origins: dict[KeyPath, int | str] = {**lines}
    for override in overrides:
        _override(data, origins, override, kind)
    try:
        value = schema.model_validate(data)
    except ValidationError as error:
        told = [with_its_file(fault, kind) for fault in faults(error, schema, data)]
        raise _refusal(told, file, origins) from None
    found = []
    if isinstance(value, Strategy):
        found = _idle_faults(value, origins) + _sweep_faults(value, data, overrides)
    if found:
        raise _refusal(found, file, origins)
    return Located(value, file, origins)


def _refusal(found: Sequence[Fault], file: str, origins: dict[KeyPath, int | str]) -> UserError:
    def line(fault: Fault) -> int:
        origin = _origin(fault.path, origins)
        return origin if isinstance(origin, int) else 0

    told = [_told(fault, file, origins) for fault in sorted(found, key=line)[:MOST_FAULTS]]
    if len(found) > MOST_FAULTS:
        told.append(f"{file}: there are more faults, these are {MOST_FAULTS} of them")
    return UserError(told[0], tuple(told[1:]))


def _origin(path: KeyPath, origins: dict[KeyPath, int | str]) -> int | str:
    while path not in origins and path:
        path = path[:-1]
    return origins.get(path, 1)


def _told(fault: Fault, file: str, origins: dict[KeyPath, int | str]) -> str:
    origin, key = _origin(fault.path, origins), dotted(fault.path)
    sentence = printable(fault.sentence, 1000)
    if isinstance(origin, str):
        same = _parts(origin)[0][-len(fault.path) :] == [str(step) for step in fault.path]
        return f"{_written(origin)}: {'' if same else key + ': '}{sentence}"
    # A line of the file may be at odds with, or hold, what an override has changed.
    changed = dict.fromkeys(
        _written(text)
        for place, text in origins.items()
        if isinstance(text, str) and any(_overlap(place, path) for path in (fault.path, *fault.because))
    )
    hint = f" (with {', '.join(changed)})" if changed else ""
    return f"{printable(file, 4096)}:{origin}: {key + ': ' if key else ''}{sentence}{hint}"


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    return one[: len(other)] == other[: len(one)]


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sort ``key.path=value`` settings into those of the scenario and those of the strategy by their first
    key.

    A prefix ``scenario.`` or ``strategy.`` decides where both have the key.
    """
    split: dict[str, list[str]] = {"scenario": [], "strategy": []}
    for override in overrides:
        (first, *rest), _ = _parts(override)
        kinds = (
            [first] if first in split and rest else [k for k, s in SCHEMAS.items() if first in s.model_fields]
        )
        if not kinds:
            known = list(dict.fromkeys(key for schema in SCHEMAS.values() for key in schema.model_fields))
            near = meant(".".join([first, *rest]), key_paths(*SCHEMAS.values()))
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else suggest(first, known)
            raise _bad_override(
                override, f"unknown key{hint}{' ' if hint else '; '}allowed: {', '.join(known)}"
            )
        if len(kinds) > 1:
            raise _bad_override(override, f"write scenario.{first} or strategy.{first}: both have this key")
        split[kinds[0]].append(override)
    return split["scenario"], split["strategy"]


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
        _override(data, {}, override)


def _bad_override(override: str, problem: str) -> UserError:
    return UserError(f"{_written(override)}: {problem}")


def _parts(override: str) -> tuple[list[str], str]:
    """Steps and value of ``key.path=value``."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise _bad_override(override, "must have the form key.path=value, such as optimiser.lr=1e-3")
    return _steps(key), text


def _steps(key: str) -> list[str]:
    """Steps of ``tasks.0.name``, also written ``tasks[0].name`` as in messages."""
    return re.sub(r"\[(\d+)\]", r".\1", key).split(".")


def _override(data: dict, origins: dict[KeyPath, int | str], override: str, kind: str = "") -> None:
    steps, text = _parts(override)
    if steps[0] == kind and len(steps) > 1:
        steps = steps[1:]
    try:
        value, _ = parse(text)
        path, made = _put(data, steps, value, SCHEMAS.get(kind))
    except Malformed as error:
        raise _bad_override(override, error.problem) from None
    except _NoSuchPlace as error:
        raise _bad_override(override, str(error)) from None
    for place in [place for place in origins if place[: len(path)] == path]:
        del origins[place]
    for place in (*made, path):
        origins[place] = override


class _NoSuchPlace(Exception):
    """A key path leads nowhere in the data."""


def _put(
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
                raise _NoSuchPlace(f"{printable(step)!r} must be {allowed}")
            index: str | int = int(step)
        elif isinstance(target, dict):
            index = step
        else:
            raise _NoSuchPlace(f"{dotted(path)} is a value, not a section")
        path = (*path, index)
        if position == len(steps) - 1:
            target[index] = value
        elif isinstance(target, dict) and (target.get(index) is None or _plain_section(target, path, schema)):
            if steps[position + 1].isdigit():
                raise _NoSuchPlace(
                    f"{dotted(path)} has no entry {steps[position + 1]}: it is not in the file"
                )
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


def _idle_faults(strategy: Strategy, origins: Mapping[KeyPath, int | str]) -> list[Fault]:
    """What a file, not an override, says of training steps that its strategy does not take."""
    idle = [path for path in strategy.idle_of_steps if isinstance(origins.get(path), int)]
    return [Fault(path, f"has no effect {UNTRAINED}", (("adapter", "kind"),)) for path in idle]


def _sweep_faults(strategy: Strategy, data: dict, overrides: Sequence[str]) -> list[Fault]:
    """What the settings refuse of the values to sweep."""
    if any(_parts(override)[0][0] != "sweep" for override in overrides):
        # The values belong to the file as it stands, and a run with other settings does not use them.
        return []
    found = []
    for key, values in strategy.sweep.items():
        told = set()
        for index, value in enumerate(values):
            trial = deepcopy({name: part for name, part in data.items() if name != "sweep"})
            for path, sentence in _trial_faults(trial, key, value):
                if sentence not in told:
                    told.add(sentence)
                    found.append(Fault(("sweep", key, index) if path else ("sweep", key), sentence))
    return found


def setting_faults(name: str, overrides: Sequence[str], key: str, value: float) -> list[tuple[bool, str]]:
    """What a strategy has against a swept value.

    Args:
        name: of the strategy, or its path.
        overrides: settings that go before.
        key: dotted path of the setting.
        value: of it.

    Returns:
        (whether it is the value's fault and not the key's, sentence) of every fault; empty where it is taken.
    """
    path = find("strategy", name)
    data, _ = read_yaml(path, str(path))
    for override in overrides:
        _override(data, {}, override, "strategy")
    return _trial_faults(data, key, value)


def _trial_faults(trial: dict, key: str, value: float) -> list[tuple[bool, str]]:
    """(whether it is the value's fault, sentence) of everything wrong once a swept value is in place."""
    try:
        path, _ = _put(trial, _steps(key), value)
        Strategy.model_validate(trial)
    except _NoSuchPlace as error:
        return [(False, f"names no setting of this strategy: {error}")]
    except ValidationError as error:
        return [
            (
                (False, f"names no setting of this strategy: {fault.sentence}")
                if fault.unknown
                else (
                    True,
                    fault.sentence if fault.path == path else f"{dotted(fault.path)}: {fault.sentence}",
                )
            )
            for fault in faults(error, Strategy, trial)
        ]
    return []
