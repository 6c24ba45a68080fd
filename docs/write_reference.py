"""Writes reference.md, every key of scenarios and strategies, from the models in cl_complora/config/.

Run: python docs/write_reference.py [FILE]
"""

import ast
import inspect
import json
import re
import textwrap
import typing
from collections.abc import Iterator
from types import NoneType, UnionType

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import AfterValidator
from pydantic.fields import FieldInfo
from written_pages import output, prose, table

from cl_complora.config.base import MOST, EachOnce, Name, PathText, Section, Template
from cl_complora.config.scenario import Scenario
from cl_complora.config.strategy import Strategy

PAGE = """\
# YAML reference

Every key that a scenario and a strategy may have. This page is written by `docs/write_reference.py` from the
models in [config/](../cl_complora/config): change those, not this.

Keys of lists are written with `[]`: `tasks[].name` is the name of every task. `--set` takes the same paths
with places counted from 0 (`--set tasks.0.shots=4`), and lists and sections as YAML (`--set 'seeds=[0, 1]'`).
What a file may not say (a key that is not here, a value of another type, a setting
that would have no effect) is refused with its line. `cl-complora check SCENARIO STRATEGY` reads both without
running anything.

A section that may be one of several things says which in `kind`; the headings below name it. Paths of
sections that may stand in several places begin at the section. Where the default is `–` there is none, and
the last column says what happens then.
"""

HEAD = ("key", "type", "allowed", "default", "meaning")
ALIASES = [(Name, "name"), (PathText, "path"), (Template, "text with one `{}`")]
NUMBERS = {int: "whole number", float: "number"}
# A name begins with a letter or digit and may be used as that of a file.
NAMED = "up to 64 letters, digits, spaces and `._+-`"


def docstrings(model: type[Section]) -> dict[str, str]:
    """Field → the text below it, of the model and what it is made from."""
    found = {}
    for base in reversed(model.__mro__):
        if issubclass(base, Section) and base is not Section:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body
            for field, text in zip(body, body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    found[field.target.id] = plain(ast.literal_eval(text.value))
    return found


def plain(text: str) -> str:
    """A docstring as Markdown on one line."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", " ".join(text.split()))
    return text.replace("``", "`")


def sections(hint: object) -> Iterator[type[Section]]:
    """The models that a type names."""
    if isinstance(hint, type) and issubclass(hint, Section):
        yield hint
    for inside in typing.get_args(hint):
        yield from sections(inside)


def sections_of(model: type[Section]) -> Iterator[type[Section]]:
    """The models that the keys of a model name."""
    for hint in typing.get_type_hints(model, include_extras=True).values():
        yield from sections(hint)


def is_list(hint: object) -> bool:
    """Whether a type is a list of sections."""
    if typing.get_origin(hint) is list:
        return any(sections(hint))
    return any(map(is_list, typing.get_args(hint)))


def kind_of(model: type[Section]) -> str | None:
    """What its ``kind`` has to be; None for a section without one, or with several."""
    hint = model.model_fields["kind"].annotation if "kind" in model.model_fields else None
    return typing.get_args(hint)[0] if len(typing.get_args(hint)) == 1 else None


def places(root: type[Section]) -> dict[type[Section], list[str]]:
    """Every model below one, with the paths that it may stand at, in the order of the keys."""
    found: dict[type[Section], list[str]] = {root: [""]}

    def walk(model: type[Section], path: str) -> None:
        for key, hint in typing.get_type_hints(model, include_extras=True).items():
            for inside in sections(hint) if key in model.model_fields else ():
                where = f"{path}.{key}".lstrip(".") + ("[]" if is_list(hint) else "")
                found.setdefault(inside, []).append(where)
                walk(inside, where)

    walk(root, "")
    return found


def common(paths: list[str]) -> str:
    """What the paths end in alike."""
    parts = [path.split(".") for path in paths]
    end: list[str] = []
    for steps in zip(*map(reversed, parts), strict=False):
        if len(set(steps)) > 1:
            break
        end.insert(0, steps[0])
    return ".".join(end) if len(set(paths)) > 1 else paths[0]


class Words:
    """A type in words.

    Args:
        headings: of the sections.
    """

    def __init__(self, headings: dict[type[Section], str]) -> None:
        self._headings = headings

    def of(self, hint: object) -> tuple[str, str]:
        """(type, what is allowed)."""
        for alias, word in ALIASES:
            if hint == alias:
                return word, NAMED if alias is Name else ""
        origin, inside = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Annotated:
            word, allowed = self.of(inside[0])
            return word, _join(_bounds(inside[1:], typing.get_origin(inside[0]) is list), allowed)
        if origin in (typing.Union, UnionType):
            return self._one_of([one for one in inside if one is not NoneType])
        if origin is typing.Literal:
            return "one of", ", ".join(f"`{value}`" for value in inside)
        if origin is list:
            word, allowed = self.of(inside[0])
            several = "list" if word == "one of" else f"list of {_plural(word)}"
            return several, f"of {allowed}" if word == "one of" else allowed
        if origin is dict:
            (key, known), (value, allowed) = map(self.of, inside)
            key = known.replace(", ", " or ") if key == "one of" else key
            return f"mapping of {key} to {value}", allowed
        if isinstance(hint, type) and issubclass(hint, Section):
            heading = self._headings[hint]
            return f"[{kind_of(hint) or 'section'}](#{slug(heading)})", ""
        return {bool: "true or false", str: "text", typing.Any: "anything", **NUMBERS}[hint], ""

    def _one_of(self, options: list[object]) -> tuple[str, str]:
        words = [self.of(option) for option in options]
        if {int, float} == set(options):
            return "number", ""
        types = [word for word, _ in words if word != "one of"]
        named = [allowed for word, allowed in words if word == "one of"]
        others = [allowed for word, allowed in words if word != "one of" and allowed]
        told = ", ".join([*types[:-1], ""]) + " or ".join([*types[-1:], *(["one of"] if named else [])])
        return told.lstrip(", "), "; or ".join([*dict.fromkeys(others), *named])


def _plural(word: str) -> str:
    return "texts with one `{}`" if word.startswith("text with") else word if "](" in word else f"{word}s"


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _bounds(metadata: tuple[object, ...], of_list: bool) -> str:
    """Limits in words."""
    flat = [one for part in metadata for one in (part.metadata if isinstance(part, FieldInfo) else [part])]
    found = {type(one): one for one in flat}
    least, above = found.get(Ge), found.get(Gt)
    most, below = found.get(Le), found.get(Lt)
    low = f"≥ {least.ge:g}" if least and least.ge > -MOST else f"> {above.gt:g}" if above else ""
    high = f"≤ {most.le:,}" if most and most.le < MOST else f"< {below.lt:,}" if below else ""
    told = [low, high] if not of_list else []
    few, many = (
        getattr(found.get(kind), name, None)
        for kind, name in ((MinLen, "min_length"), (MaxLen, "max_length"))
    )
    if of_list and (few or many):
        told.append(
            f"{few} entries"
            if few == many
            else f"{few or 0} to {many} entries"
            if many
            else f"at least {few} entry"
        )
    told += ["each once"] if any(one == EachOnce for one in flat if isinstance(one, AfterValidator)) else []
    return _join(*told)


def default(field: FieldInfo) -> str:
    """What a key is where a file does not say."""
    if field.is_required():
        return "required"
    value = field.default
    if value is None or value == "":
        return "–"
    if isinstance(value, Section):
        said = value.model_dump(mode="json", exclude_unset=True)
        return f"`{_yaml(said)}`" if said else "its own"
    return f"`{_yaml(value)}`"


def _yaml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(inside)}" for key, inside in value.items()) + "}"
    if isinstance(value, list):
        some = value if len(value) <= 8 else [*value[:4], "…"]
        return f"[{', '.join(map(_yaml, some))}]"
    if isinstance(value, str):
        return value if re.fullmatch(r"[\w./…+-]+", value) else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MkDocs both make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def rows(model: type[Section], path: str, words: Words) -> Iterator[tuple[str, ...]]:
    """A row for every key of a section."""
    said, hints = docstrings(model), typing.get_type_hints(model, include_extras=True)
    for key, field in model.model_fields.items():
        if key == "kind" and kind_of(model) is not None:
            continue
        word, allowed = words.of(hints[key])
        place = f"{path}.{key}" if path else key
        yield f"`{place}`", word, allowed, default(field), said[key]


def part(root: type[Section], title: str) -> Iterator[str]:
    """The sections of a file."""
    found = places(root)
    paths = {model: common(where) or model.__name__ for model, where in found.items()}
    headings = {}
    for model, path in paths.items():
        kind = kind_of(model)
        headings[model] = title if model is root else f"{path}: {kind}" if kind else path
        if (
            kind is None and list(paths.values()).count(path) > 1
        ):  # only where kinds of a section differ in it
            holders = [kind_of(one) for one in found if model in set(sections_of(one))]
            headings[model] += f" of {' and '.join(filter(None, holders))}"
    assert len({slug(heading) for heading in headings.values()}) == len(headings)
    words = Words(headings)
    for model, heading in headings.items():
        yield f"{'##' if model is root else '###'} {heading}"
        yield prose(plain(inspect.getdoc(model).split("\n\n")[0]))
        listed = list(rows(model, "" if model is root else paths[model], words))
        yield table(HEAD, listed) if listed else "No other keys."


def page() -> str:
    """The whole page."""
    return "\n\n".join([prose(PAGE), *part(Scenario, "Scenario"), *part(Strategy, "Strategy")]) + "\n"


output("reference.md").write_text(page(), encoding="utf-8")
