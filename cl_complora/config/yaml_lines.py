"""YAML text to plain data and the line of every key; what is wrong with a text is told in plain words.

Scalars are read as YAML 1.2 has them: ``1e-3`` is a number; ``no``, ``08``, ``1:30`` and ``2024-05-01`` are
text. (YAML 1.1, PyYAML's default, makes them a text, false, an error, 90 and a date, which no setting here
ever means.)
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from ..errors import UserError, printable

# PyYAML takes a second for this many bytes of the densest YAML, and a fifth of one for ordinary text.
MAX_BYTES = 100_000
MAX_VALUES = 50_000
MAX_CHARACTERS = 1_000_000
MAX_BRACKETS = 20

KeyPath = tuple[str | int, ...]
Lines = dict[KeyPath, int]

_TAG = "tag:yaml.org,2002:"
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}

_NAMES = {"bool": "true or false", "int": "a whole number of at most 4300 digits", "float": "a number"}

_SCALARS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "null": lambda text: None,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": int,
    "float": lambda text: float(_SPECIAL.get(text.lower(), text)),
}


_TOO_DEEP = "lists and sections are nested too deeply here, or an alias holds itself"


class Malformed(Exception):
    """A text that is no YAML, or YAML that is no plain data.

    Args:
        problem: what is wrong.
        line: where, from 1.
        path: key that it is about.
    """

    def __init__(self, problem: str, line: int = 1, path: KeyPath = ()) -> None:
        super().__init__(problem)
        self.problem, self.line = f"{dotted(path)}: {problem}" if path else problem, line


class _Loader(yaml.SafeLoader):
    """Composes nodes only; what a plain scalar means is resolved by the patterns below."""

    yaml_implicit_resolvers: dict = {}

    def fetch_flow_collection_start(self, *arguments: Any) -> None:
        # The scanner's time for every token grows with the brackets that are open.
        if self.flow_level >= MAX_BRACKETS:
            raise Malformed(_TOO_DEEP, self.line + 1)
        super().fetch_flow_collection_start(*arguments)


for _name, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
    ("float", r"^[-+]?[0-9]+[eE][-+]?[0-9]+$", list("-+0123456789")),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", list("-+.")),
    ("merge", r"^<<$", ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)


def read_yaml(path: Path, file: str) -> tuple[Any, Lines]:
    """Plain data of a YAML file and the line of every key.

    Args:
        path: where to read.
        file: its name as the user gave it.

    Raises:
        UserError: if the file cannot be read, is not YAML, is too large, repeats a key or uses a tag.
    """
    file = printable(file, 4096)
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from None
    if len(raw) > MAX_BYTES:
        raise UserError(f"{file}: must have at most {MAX_BYTES} bytes, got a larger file")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{file}:1: must be text in UTF-8, this is UTF-16; save it again as UTF-8")
    if b"\0" in raw:
        raise UserError(
            f"{file}:{_line(raw, raw.index(0))}: must be text in UTF-8, zero bytes make it binary"
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte, line = raw[error.start], _line(raw, error.start)
        raise UserError(
            f"{file}:{line}: must be text in UTF-8, got the byte 0x{byte:02x}; save it as UTF-8"
        ) from None
    try:
        return parse(text)
    except Malformed as error:
        raise UserError(f"{file}:{error.line}: {error.problem}") from None


def _line(raw: bytes, position: int) -> int:
    return raw.count(b"\n", 0, position) + 1


def parse(text: str) -> tuple[Any, Lines]:
    """Plain data of a YAML text and the line of every key.

    Raises:
        Malformed: with the line and, in plain words, the problem.
    """
    try:
        node = _known(text) if len(text) <= _KEPT else _composed(text)
        builder = _Builder()
        return (None if node is None else builder.build(node, ())), builder.lines
    except yaml.MarkedYAMLError as error:
        raise _explained(error) from None
    except RecursionError:
        raise Malformed(_TOO_DEEP) from None


def _composed(text: str) -> yaml.Node | None:
    """The nodes of a text."""
    try:
        loader = _Loader(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Malformed(
            f"not valid YAML: the character U+{error.character:04X} may not be used", line
        ) from None
    try:
        return loader.get_single_node()
    except RecursionError:
        raise Malformed(_TOO_DEEP, loader.line + 1) from None
    except ValueError:
        raise Malformed(
            "not valid YAML: an escape (\\U…) that stands for no character", loader.line + 1
        ) from None
    finally:
        loader.dispose()


# A sweep asks a strategy's file hundreds of times, and scanning it is nearly all of the work. Files of people
# have a few thousand characters.
_KEPT = 10_000
_known = functools.lru_cache(maxsize=100)(_composed)


class _Builder:
    """Turns nodes into data of their own: nothing is shared between aliases, and what they expand to is
    bounded."""

    def __init__(self) -> None:
        self.lines: Lines = {}
        self.values = self.characters = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        """The data of a node; its lines are noted under ``path``."""
        line = self._count(node)
        self.lines.setdefault(path, line)
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            data = {}
            for name, (key, value) in self._entries(node, path).items():
                self.lines[(*path, name)] = key.start_mark.line + 1
                data[name] = self.build(value, (*path, name))
            return data
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.build(value, (*path, index)) for index, value in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
            if re.search("[\ud800-\udfff]", node.value):
                raise Malformed(f"half a character (a lone surrogate), got {shown(node.value)}", line, path)
            try:
                return _SCALARS[kind](node.value)
            except (ValueError, KeyError):
                raise Malformed(f"must be {_NAMES[kind]}, got {shown(node.value)}", line, path) from None
        tag = printable(node.tag.replace(_TAG, "!!"))
        raise Malformed(
            f"the tag {tag} is not allowed; only plain values, lists and sections are", line, path
        )

    def _entries(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Name → key and value; what ``<<: *other`` brings in comes last and replaces nothing."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        inherited: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            line = self._count(key)
            if key.tag == _TAG + "merge":
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(source, yaml.MappingNode):
                        message = "must be an alias of a section (<<: *name) or a list of them"
                        raise Malformed(message, line, (*path, "<<"))
                    for name, entry in self._entries(source, path).items():
                        inherited.setdefault(name, entry)
            elif not isinstance(key, yaml.ScalarNode) or key.tag.removeprefix(_TAG) not in _SCALARS:
                raise Malformed("a key must be plain text", line, path)
            elif key.value in own:
                first = own[key.value][0].start_mark.line + 1
                message = f"this key stands twice in its section, first in line {first}"
                raise Malformed(message, line, (*path, key.value))
            else:
                own[key.value] = key, value
        return own | {name: entry for name, entry in inherited.items() if name not in own}

    def _count(self, node: yaml.Node) -> int:
        # One anchored node may be reached along very many paths: counting visits bounds what a YAML bomb can
        # cost.
        self.values += 1
        line = node.start_mark.line + 1
        if self.values > MAX_VALUES:
            raise Malformed(
                f"at most {MAX_VALUES} values are read, here are more (aliases count each time)", line
            )
        self.characters += len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if self.characters > MAX_CHARACTERS:
            raise Malformed(f"at most {MAX_CHARACTERS} characters are read, aliases counted each time", line)
        return line


# What PyYAML says → what a person wants to know. The sentence is about the place where the problem was
# noticed ("here") or about the opening bracket, quote or section that it belongs to ("start").
_CLOSING = r"expected '?,'? or '([\]}])', but got "
_SYNTAX: tuple[tuple[str, str, str], ...] = (
    (r"character '\\t' that cannot start", "here", "a tab; YAML is indented with spaces"),
    (r"character (.*) that cannot start", "here", "a text that starts with {0} needs quotes"),
    (
        r"mapping values are not allowed here",
        "here",
        "a second ':': correct the indentation or quote the text",
    ),
    (r"could not find expected ':'", "start", "expected 'key: value', found no ':'"),
    (r"unexpected end of stream", "start", "this quote is never closed"),
    (
        r"escape (?:character|sequence)",
        "here",
        'a backslash in "…" starts an escape; use single quotes for this text',
    ),
    (_CLOSING + r"'\{'", "here", 'in a list, a text that holds {{}} needs quotes: ["a photo of a {{}}."]'),
    (_CLOSING + r"'<(?:stream|document)", "start", "this bracket is never closed: '{0}' is missing"),
    (_CLOSING, "start", "after this bracket a ',' or the closing '{0}' is missing, noticed in line {here}"),
    (
        r"expected <block end>",
        "here",
        "does not fit what begins in line {start}: check indentation and quotes",
    ),
    (r"expected the node content, but found", "here", "a value is missing before this place"),
    (r"expected '<document start>', but found", "here", "does not belong to what stands before it"),
    (r"undefined alias '?([^']*)'?", "here", "the alias *{0} has no anchor &{0} before it"),
    (r"but found another document", "here", "a second document ('---'); one file holds one configuration"),
)


def _explained(error: yaml.MarkedYAMLError) -> Malformed:
    problem = error.problem or error.context or "unreadable"
    here = error.problem_mark or error.context_mark
    start = error.context_mark or here
    lines = {"here": here.line + 1 if here else 1, "start": start.line + 1 if start else 1}
    for pattern, where, sentence in _SYNTAX:
        match = re.search(pattern, problem)
        if match:
            return Malformed(f"not valid YAML: {sentence.format(*match.groups(), **lines)}", lines[where])
    return Malformed(f"not valid YAML: {printable(problem)}", lines["here"])


def shown(value: Any) -> str:
    """A value as a YAML file would have it, on one line and not too long."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return printable(f"[{', '.join(shown(item) for item in value[:20])}]", 60)
    if isinstance(value, str) and len(value) > 60:
        value = value[:59] + "…"
    return repr(value) if isinstance(value, str) else printable(repr(value), 60)


def dotted(path: KeyPath) -> str:
    """``tasks[0].source.kind``."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{printable(step) or repr(step)}" for step in path)
    return "".join(steps).lstrip(".")
