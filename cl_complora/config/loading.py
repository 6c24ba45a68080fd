"""YAML files to validated settings; every fault is told with file, line, key, value and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ..catalog import find
from ..errors import UserError
from .scenario import Scenario
from .strategy import Strategy

MAX_BYTES = 2_000_000
MAX_NODES = 200_000

Path_ = tuple[str | int, ...]
Settings = TypeVar("Settings", Scenario, Strategy)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads ``1e-3`` as a number (YAML 1.1 wants ``1.0e-3``)."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _parse(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


@dataclass(frozen=True)
class Located(Generic[Settings]):
    """Validated settings with the place that each key came from.

    Attributes:
        value: the settings.
        file: as shown to the user.
        lines: key path → line (1-based).
    """

    value: Settings
    file: str
    lines: dict[Path_, int]

    def fault(self, path: Path_, message: str) -> str:
        """``file:line: key: message`` for a key path."""
        return _place(self.file, self.lines, path) + message

    @property
    def folder(self) -> Path:
        """Folder that relative paths in the file start from."""
        return Path(self.file).parent if Path(self.file).exists() else Path(".")


def load_scenario(name_or_path: str, overrides: Sequence[str] = ()) -> Located[Scenario]:
    """Read a scenario by name (``embedded``) or path; ``overrides`` are ``key.path=value`` with YAML values."""
    return _load("scenario", name_or_path, Scenario, overrides)


def load_strategy(name_or_path: str, overrides: Sequence[str] = ()) -> Located[Strategy]:
    """Read a strategy by name (``complora``) or path; ``overrides`` as in :func:`load_scenario`."""
    return _load("strategy", name_or_path, Strategy, overrides)


def _load(kind: str, name_or_path: str, schema: type[Settings], overrides: Sequence[str]) -> Located[Settings]:
    path = find(kind, name_or_path)
    shown = str(path)
    data, lines = read_yaml(path, shown)
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {_type_name(data)}"
        raise UserError(f"{shown}:1: a {kind} file must be a mapping (key: value), found {found}")
    for override in overrides:
        _override(data, override)
    try:
        return Located(schema.model_validate(data), shown, lines)
    except ValidationError as error:
        faults = _faults(error, schema, shown, lines, data)
        raise UserError(faults[0], tuple(faults[1:])) from None


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sort ``key.path=value`` settings into those of the scenario and those of the strategy by their first key.

    A prefix ``scenario.`` or ``strategy.`` decides where both have the key.
    """
    sorted_: tuple[list[str], list[str]] = ([], [])
    for override in overrides:
        key, equals, _ = override.partition("=")
        first, _, rest = key.partition(".")
        if not equals or not key:
            raise UserError(f"--set {override!r}: must have the form key.path=value, such as optimiser.lr=1e-3")
        if first in ("scenario", "strategy") and rest:
            sorted_[first == "strategy"].append(override[len(first) + 1 :])
        elif first in Strategy.model_fields and first not in Scenario.model_fields:
            sorted_[1].append(override)
        elif first in Scenario.model_fields and first not in Strategy.model_fields:
            sorted_[0].append(override)
        elif first in Scenario.model_fields:
            raise UserError(f"--set {override!r}: write scenario.{key}=… or strategy.{key}=…, both have '{first}'")
        else:
            known = [*Scenario.model_fields, *Strategy.model_fields]
            raise UserError(f"--set {override!r}: unknown key '{first}'{_suggest(first, known)}")
    return sorted_


def apply_overrides(data: dict, overrides: Sequence[str]) -> None:
    """Apply ``key.path=value`` settings to plain data in place."""
    for override in overrides:
        _override(data, override)


def _override(data: Any, override: str) -> None:
    key, _, text = override.partition("=")
    try:
        value = _parse(text)
    except yaml.YAMLError:
        raise UserError(f"--set {override!r}: {text!r} is not a YAML value") from None
    target, steps = data, key.split(".")
    for position, step in enumerate(steps):
        last = position == len(steps) - 1
        if isinstance(target, list):
            if not step.isdigit() or int(step) >= len(target):
                raise UserError(f"--set {override!r}: '{step}' must be an index from 0 to {len(target) - 1}")
            index: str | int = int(step)
        elif isinstance(target, dict):
            index = step
        else:
            raise UserError(f"--set {override!r}: '{'.'.join(steps[:position])}' is a value, not a section")
        if last:
            target[index] = value
        else:
            if isinstance(target, dict):
                # An absent or empty section is made; the schema says whether it may exist.
                target[index] = target.get(index) if target.get(index) is not None else {}
            target = target[index]


def read_yaml(path: Path, shown: str) -> tuple[Any, dict[Path_, int]]:
    """Plain data of a YAML file and the line of every key.

    Raises:
        UserError: if the file cannot be read, is not YAML, is too large, repeats a key or uses a tag.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{shown}: the file has {path.stat().st_size} bytes; at most {MAX_BYTES} are read")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown}: not a text file in UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{shown}: cannot be read: {error.strerror or error}") from None
    try:
        node = yaml.compose(text, Loader=_Loader)
        lines: dict[Path_, int] = {}
        if node is not None:
            _walk(node, (), lines, shown, [0])
        return yaml.load(text, Loader=_Loader), lines  # noqa: S506 - a SafeLoader with one more number format
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{shown}{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{shown}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{shown}: nested too deeply to be a configuration") from None


def _walk(node: yaml.Node, path: Path_, lines: dict[Path_, int], shown: str, count: list[int]) -> None:
    # Aliases make one node reachable along many paths: counting paths bounds what a YAML bomb can cost.
    count[0] += 1
    if count[0] > MAX_NODES:
        raise UserError(f"{shown}: more than {MAX_NODES} values once its aliases are expanded")
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            name = getattr(key, "value", None)
            if not isinstance(name, str):
                raise UserError(f"{shown}:{key.start_mark.line + 1}: a key must be plain text")
            if name in seen:
                raise UserError(f"{shown}:{key.start_mark.line + 1}: the key '{name}' stands twice in this section")
            seen.add(name)
            lines[(*path, name)] = key.start_mark.line + 1
            _walk(value, (*path, name), lines, shown, count)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), lines, shown, count)


def _place(shown: str, lines: dict[Path_, int], path: Path_) -> str:
    at = path
    while at not in lines and at:
        at = at[:-1]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return f"{shown}:{lines.get(at, 1)}: " + (f"{key}: " if key else "")


def _faults(error: ValidationError, schema: type[BaseModel], shown: str, lines: dict, data: Any) -> list[str]:
    faults, told = [], set()
    for item in error.errors(include_url=False):
        path = _real_path(item["loc"], data)
        if path in told:  # an optional or union key gives one fault per alternative; the first says it
            continue
        told.add(path)
        faults.append(_place(shown, lines, path) + _sentence(item, schema, path))
    return faults


def _real_path(loc: Path_, data: Any) -> Path_:
    # pydantic puts union tags and type names into the path; only steps that the data has are places in the file.
    path: list[str | int] = []
    for position, step in enumerate(loc):
        inside = (isinstance(data, dict) and step in data) or (
            isinstance(data, list) and isinstance(step, int) and step < len(data)
        )
        if inside:
            path.append(step)
            data = data[step]
        elif position == len(loc) - 1 and isinstance(data, dict) and isinstance(step, str) and _is_key(step):
            path.append(step)
    return tuple(path)


def _is_key(step: str) -> bool:
    return re.fullmatch(r"[a-z_]+", step) is not None


def _sentence(item: dict, schema: type[BaseModel], path: Path_) -> str:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    got = f", got {_shown(value)}"
    if kind == "missing":
        return "this key is missing"
    if kind == "extra_forbidden":
        known = _known_keys(schema, path[:-1], item["loc"])
        return f"unknown key{_suggest(str(path[-1]), known)}" + (f"; allowed: {', '.join(known)}" if known else "")
    if kind in ("literal_error", "union_tag_invalid"):
        tag = context.get("expected") or context.get("expected_tags", "")
        given = context.get("tag", value)
        options = re.findall(r"'([^']*)'", str(tag))
        return f"must be {str(tag).replace(' or ', ', ')}, got {_shown(given)}{_suggest(str(given), options, ' — ')}"
    if kind == "union_tag_not_found":
        return f"needs a key '{context.get('discriminator', 'kind').strip(chr(39))}' that says which kind it is"
    if kind == "value_error":
        return str(context.get("error", item["msg"]))
    if kind == "string_pattern_mismatch":
        if "\\{\\}" in context.get("pattern", ""):
            return f"a prompt must hold {{}} once, where the class name goes{got}"
        return f"a name has 1 to 64 letters, digits, spaces or . _ + - and starts with a letter or digit{got}"
    wanted = {
        "greater_than_equal": "must be at least {ge}",
        "greater_than": "must be greater than {gt}",
        "less_than_equal": "must be at most {le}",
        "less_than": "must be less than {lt}",
        "int_type": "must be a whole number",
        "float_type": "must be a number",
        "string_type": "must be text",
        "bool_type": "must be true or false",
        "list_type": "must be a list",
        "dict_type": "must be a section (key: value)",
        "model_type": "must be a section (key: value)",
        "model_attributes_type": "must be a section (key: value)",
        "finite_number": "must be a finite number",
        "too_short": "must have at least {min_length} entries",
        "too_long": "must have at most {max_length} entries",
        "string_too_short": "must not be empty",
    }.get(kind)
    return (wanted.format(**context) if wanted else item["msg"]) + got


def _known_keys(schema: type[BaseModel], path: Path_, loc: Path_) -> list[str]:
    model: Any = schema
    for step in loc[:-1]:
        model = _step(model, step)
        if model is None:
            return []
    return list(model.model_fields) if hasattr(model, "model_fields") else []


def _step(annotation: Any, step: str | int) -> Any:
    """The annotation one key, index or union tag further inside."""
    for candidate in _models(annotation):
        if isinstance(step, str) and step in candidate.model_fields:
            return candidate.model_fields[step].annotation
    if isinstance(step, int):
        arguments = getattr(annotation, "__args__", ())
        for argument in arguments:
            inner = getattr(argument, "__args__", None)
            if getattr(argument, "__origin__", None) is list and inner:
                return inner[0]
        return arguments[0] if arguments else None
    for candidate in _models(annotation):
        kind = candidate.model_fields.get("kind")
        if kind is not None and step in getattr(kind.annotation, "__args__", ()):
            return candidate
    return None


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models(argument)]


def _suggest(word: str, known: Sequence[str], before: str = "; ") -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"{before}did you mean '{close[0]}'?" if close and close[0] != word else ""


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, dict) else "a section"
    return text if len(text) <= 60 else text[:57] + "…"


def _type_name(value: Any) -> str:
    return {list: "list", str: "text", int: "number", float: "number", bool: "truth value"}.get(type(value), "value")
