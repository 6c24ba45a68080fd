"""Scenario and strategy files to validated settings; every fault is told with file, line, key and what is
allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import ValidationError

from ..errors import MOST_FAULTS, UserError
from .catalog import find, shipped
from .faults import Fault, closest, faults
from .overrides import NoSuchPlace, parts, put, put_override, steps_of, written
from .scenario import Scenario
from .strategy import UNTRAINED, Strategy
from .which_file import kind_of, own_keys, with_its_file
from .yaml_lines import KeyPath, dotted, printable, read_yaml

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

    @contextmanager
    def at_its_line(self) -> Iterator[None]:
        """Around what judges the settings without their file: a message about a key gets its line."""
        named = f"{type(self.value).__name__.lower()} '{self.value.name}': "
        try:
            yield
        except UserError as error:
            first, *more = (self._at_line(message, named) for message in error.messages)
            if (first, *more) == error.messages:
                raise
            raise type(error)(first, tuple(more)) from error.__cause__

    def _at_line(self, message: str, named: str) -> str:
        key = re.match(r"[\w.]+(?=:)", message.removeprefix(named))
        if not message.startswith(named) or key is None:
            return message
        origin = _origin(tuple(key[0].split(".")), self.origins)
        place = written(origin) if isinstance(origin, str) else f"{printable(self.file, 4096)}:{origin}"
        return f"{place}: {message}"

    @property
    def folder(self) -> Path:
        """Folder that relative paths in the file start from."""
        folder = Path(self.file).parent
        return folder if folder.is_dir() else Path(".")


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
        put_override(data, origins, override, kind)
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
        same = parts(origin)[0][-len(fault.path) :] == [str(step) for step in fault.path]
        return f"{written(origin)}: {'' if same else key + ': '}{sentence}"
    # A line of the file may be at odds with, or hold, what an override has changed.
    changed = dict.fromkeys(
        written(text)
        for place, text in origins.items()
        if isinstance(text, str) and any(_overlap(place, path) for path in (fault.path, *fault.because))
    )
    hint = f" (with {', '.join(changed)})" if changed else ""
    return f"{printable(file, 4096)}:{origin}: {key + ': ' if key else ''}{sentence}{hint}"


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    return one[: len(other)] == other[: len(one)]


def _idle_faults(strategy: Strategy, origins: Mapping[KeyPath, int | str]) -> list[Fault]:
    """What a file, not an override, says of training steps that its strategy does not take."""
    idle = [path for path in strategy.idle_of_steps if isinstance(origins.get(path), int)]
    return [Fault(path, f"has no effect {UNTRAINED}", (("adapter", "kind"),)) for path in idle]


def _sweep_faults(strategy: Strategy, data: dict, overrides: Sequence[str]) -> list[Fault]:
    """What the settings refuse of the values to sweep."""
    if any(parts(override)[0][0] != "sweep" for override in overrides):
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
        put_override(data, {}, override, "strategy")
    return _trial_faults(data, key, value)


def _trial_faults(trial: dict, key: str, value: float) -> list[tuple[bool, str]]:
    """(whether it is the value's fault, sentence) of everything wrong once a swept value is in place."""
    try:
        path, _ = put(trial, steps_of(key), value)
        Strategy.model_validate(trial)
    except NoSuchPlace as error:
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
