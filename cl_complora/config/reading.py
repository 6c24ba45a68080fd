"""YAML text to plain data and the line of every key; what is wrong with a text is told in plain words.

Scalars are read as YAML 1.2 has them: ``1e-3`` is a number; ``no``, ``08``, ``1:30`` and ``2024-05-01`` are text. (YAML
1.1, PyYAML's default, makes them a text, false, an error, 90 and a date, which no setting here ever means.)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from ..errors import UserError

# PyYAML takes about a second for this many bytes of the densest YAML; our longest file has 1500.
MAX_BYTES = 250_000
MAX_VALUES = 50_000

KeyPath = tuple[str | int, ...]
Lines = dict[KeyPath, int]

_TAG = "tag:yaml.org,2002:"
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}

_SCALARS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": lambda text: float(_SPECIAL.get(text.lower(), text)),
}


class Malformed(Exception):
    """A text that is no YAML, or YAML that is no plain data.

    Args:
        problem: what is wrong.
        line: where, from 1; None where it is the text as a whole.
    """

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.problem, self.line = problem, line


class _Loader(yaml.SafeLoader):
    """Composes nodes only; what a plain scalar means is resolved by the patterns below."""

    yaml_implicit_resolvers: dict = {}


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


def read_yaml(path: Path, shown: str) -> tuple[Any, Lines]:
    """Plain data of a YAML file and the line of every key.

    Args:
        path: the file.
        shown: its name as the user gave it.

    Raises:
        UserError: if the file cannot be read, is not YAML, is too large, repeats a key or uses a tag.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{shown}: cannot be read: {error.strerror or error}") from None
    if len(raw) > MAX_BYTES:
        raise UserError(f"{shown}: a configuration has at most {MAX_BYTES} bytes, this file has more")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{shown}:1: this text is UTF-16; save the file as UTF-8")
    if b"\0" in raw:
        raise UserError(f"{shown}:{_line(raw, raw.index(0))}: not a text file (it holds zero bytes); must be UTF-8 text")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"the byte 0x{raw[error.start]:02x} is not UTF-8"
        raise UserError(f"{shown}:{_line(raw, error.start)}: {found}; save the file as UTF-8") from None
    try:
        return parse(text)
    except Malformed as error:
        raise UserError(f"{shown}:{error.line or 1}: {error.problem}") from None


def _line(raw: bytes, position: int) -> int:
    return raw.count(b"\n", 0, position) + 1


def parse(text: str) -> tuple[Any, Lines]:
    """Plain data of a YAML text and the line of every key.

    Raises:
        Malformed: with the line and, in plain words, the problem.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        builder = _Builder()
        return (None if node is None else builder.build(node, ())), builder.lines
    except yaml.MarkedYAMLError as error:
        raise _explained(error) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Malformed(f"not valid YAML: the character U+{error.character:04X} may not be used", line) from None
    except RecursionError:
        raise Malformed("nested too deeply to be a configuration") from None
    except (yaml.YAMLError, ValueError, IndexError, AttributeError) as error:
        # PyYAML's scanner lets some of these through, for instance on the escape "\U00FFFFFF".
        raise Malformed(f"not valid YAML: {' '.join(str(error).split())}") from None


class _Builder:
    """Turns nodes into data of their own: nothing is shared between aliases, and what they expand to is bounded."""

    def __init__(self) -> None:
        self.lines: Lines = {}
        self.values = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        """The data of a node; its lines are noted under ``path``."""
        line = self._count(node)
        self.lines.setdefault(path, line)
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            data = {}
            for name, (key, value) in self._entries(node).items():
                self.lines[(*path, name)] = key.start_mark.line + 1
                data[name] = self.build(value, (*path, name))
            return data
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.build(value, (*path, index)) for index, value in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
            try:
                return _SCALARS[kind](node.value)
            except ValueError:
                raise Malformed(f"{shown(node.value)} cannot be read as {kind}", line) from None
        tag = node.tag.replace(_TAG, "!!")
        raise Malformed(f"the tag {printable(tag)} is not allowed; only plain values, lists and sections are", line)

    def _entries(self, node: yaml.MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Name → key and value; what ``<<: *other`` brings in comes last and replaces nothing."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        inherited: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            line = self._count(key)
            if key.tag == _TAG + "merge":
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(source, yaml.MappingNode):
                        raise Malformed("<<: must be an alias of a section (<<: *name) or a list of them", line)
                    for name, entry in self._entries(source).items():
                        inherited.setdefault(name, entry)
            elif not isinstance(key, yaml.ScalarNode) or key.tag.removeprefix(_TAG) not in _SCALARS:
                raise Malformed("a key must be plain text", line)
            elif key.value in own:
                first = own[key.value][0].start_mark.line + 1
                raise Malformed(f"{printable(key.value)}: this key stands twice in its section, first in line {first}", line)
            else:
                own[key.value] = key, value
        return own | {name: entry for name, entry in inherited.items() if name not in own}

    def _count(self, node: yaml.Node) -> int:
        # One anchored node may be reached along very many paths: counting visits bounds what a YAML bomb can cost.
        self.values += 1
        line = node.start_mark.line + 1
        if self.values > MAX_VALUES:
            raise Malformed(f"more than {MAX_VALUES} values (aliases count each time); no configuration has as many", line)
        return line


# What PyYAML says → what a person wants to know. The sentence is about the place where the problem was noticed
# ("here") or about the opening bracket, quote or section that it belongs to ("start").
_SYNTAX: tuple[tuple[str, str, str], ...] = (
    (r"character '\\t' that cannot start", "here", "a tab; YAML is indented with spaces"),
    (r"character (.*) that cannot start", "here", "a text that starts with {0} needs quotes"),
    (r"mapping values are not allowed here", "here", "a ':' where none may be; check the indentation, or quote the text"),
    (r"could not find expected ':'", "start", "expected 'key: value', found no ':'"),
    (r"unexpected end of stream", "start", "this quote is never closed"),
    (r"unknown escape character", "here", "a backslash in \"…\" starts an escape; write '…' around texts that hold one"),
    (r"expected '?,'? or '([\]}])', but got '\{'", "here", "a text that holds {{}} needs quotes here: \"a photo of a {{}}.\""),
    (r"expected '?,'? or '([\]}])', but got '<(?:stream|document)", "start", "this bracket is never closed: '{0}' is missing"),
    (r"expected '?,'? or '([\]}])', but got", "here", "expected ',' or '{0}' in the list or section opened in line {start}"),
    (r"expected <block end>, but found '-'", "here", "a list entry where the section of line {start} goes on"),
    (r"expected <block end>", "here", "the indentation or the brackets do not fit the section of line {start}"),
    (r"undefined alias '?([^']*)'?", "here", "the alias *{0} has no anchor &{0} before it"),
    (r"but found another document", "here", "a second document ('---'); one file holds one configuration"),
)


def _explained(error: yaml.MarkedYAMLError) -> Malformed:
    problem = error.problem or error.context or "unreadable"
    here = error.problem_mark or error.context_mark
    start = error.context_mark or here
    lines = {"here": here.line + 1 if here else None, "start": start.line + 1 if start else None}
    for pattern, where, sentence in _SYNTAX:
        match = re.search(pattern, problem)
        if match:
            told = sentence.format(*match.groups(), start=lines["start"])
            return Malformed(f"not valid YAML: {told}", lines[where])
    return Malformed(f"not valid YAML: {printable(problem)}", lines["here"])


def printable(text: str, most: int = 80) -> str:
    """A text from a file made fit for one line of a terminal."""
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= most else text[: most - 1] + "…"


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
    return printable(repr(value), 60)
