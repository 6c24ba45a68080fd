"""What the schema refuses, told as one sentence per fault: the key, what is allowed, what was found."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from .base import FORMS
from .yaml_lines import KeyPath, shown

# Finding what a misspelt key may mean takes a while; nobody reads as many.
MOST = 200


@dataclass(frozen=True)
class Fault:
    """One thing wrong.

    Attributes:
        path: the guilty key.
        sentence: what is wrong and what is allowed.
        because: other keys that the fault depends on.
        unknown: whether the key itself is the fault.
    """

    path: KeyPath
    sentence: str
    because: tuple[KeyPath, ...] = ()
    unknown: bool = False


# pydantic's error type → what the value must.
_MUST = {
    "greater_than_equal": "be at least {ge:.12g}",
    "greater_than": "be greater than {gt:.12g}",
    "less_than_equal": "be at most {le:.12g}",
    "less_than": "be less than {lt:.12g}",
    "int_type": "be a whole number",
    "float_type": "be a number",
    "finite_number": "be a finite number",
    "string_type": "be text",
    "bool_type": "be true or false",
    "list_type": "be a list",
    "dict_type": "be a section (key: value)",
    "model_type": "be a section (key: value)",
    "model_attributes_type": "be a section (key: value)",
    "literal_error": "be {expected}",
    "too_short": "have at least {min_length} entries",
    "too_long": "have at most {max_length} entries",
    "string_too_short": "not be empty",
    "string_too_long": "have at most {max_length} characters",
}


def faults(error: ValidationError, schema: type[BaseModel], data: Any) -> list[Fault]:
    """One fault for every key that the schema refuses in ``data``, in pydantic's order; at most
    :data:`MOST`."""
    grouped: dict[KeyPath, list[dict[str, Any]]] = {}
    for item in error.errors(include_url=False):
        path = _real_path(item, data)
        if path in grouped or len(grouped) < MOST:
            grouped.setdefault(path, []).append(item)
    # A section is one of the forms of a setting: what it should have been instead is told of no section
    # that is only wrong within.
    for path in [path for path, items in grouped.items() if _of_other_forms(items)]:
        if any(other != path and other[: len(path)] == path for other in grouped):
            del grouped[path]
    found = [_fault(path, items, schema) for path, items in grouped.items()]
    # A misspelt key is one mistake: that the right one is missing then goes without saying.
    meant = {
        (*path[:-1], _meant(path, items, schema)) for path, items in grouped.items() if _is_unknown(items)
    }
    return [
        fault for fault in found if not (fault.path in meant and grouped[fault.path][0]["type"] == "missing")
    ]


def _of_other_forms(items: Sequence[dict[str, Any]]) -> bool:
    """Whether a section is refused by forms of its setting that are no section."""
    plain = all(item["type"] in _MUST and not item["type"].startswith("model_") for item in items)
    return plain and isinstance(items[0]["input"], dict)


def _is_unknown(items: Sequence[dict[str, Any]]) -> bool:
    return items[0]["type"] == "extra_forbidden"


def _real_path(item: dict[str, Any], data: Any) -> KeyPath:
    """Where a fault lies in the data: pydantic puts union tags and type names among the steps."""
    path: list[str | int] = []
    loc, kind = item["loc"], item["type"]
    for position, step in enumerate(loc):
        last = position == len(loc) - 1
        if (
            isinstance(data, dict)
            and (step in data or (kind == "missing" and last))
            and (last or step != data.get("kind"))
        ):
            path.append(step)
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            path.append(step)
            data = data[step]
    if kind == "refused":
        path += item["ctx"]["at"]
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        path.append("kind")
    return tuple(path)


def _fault(path: KeyPath, items: Sequence[dict[str, Any]], schema: type[BaseModel]) -> Fault:
    item = items[0]
    kind, context = item["type"], item.get("ctx", {})
    if kind == "refused":
        section = path[: len(path) - len(context["at"])]
        return Fault(path, context["message"], tuple((*section, *other) for other in context["because"]))
    if kind == "value_error":
        return Fault(path, str(context["error"]))
    if kind == "extra_forbidden":
        known, meant = _known_keys(schema, item["loc"][:-1]), _meant(path, items, schema)
        home = _home(schema, item["loc"])
        hint = f"; did you mean {meant!r}?" if meant else f"; it belongs {home};" if home else ";"
        return Fault(path, f"unknown key{hint} allowed: {', '.join(known)}", unknown=True)
    if kind == "missing":
        return Fault(path, "this key is missing")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tags = _tags(schema, item["loc"])
        if kind == "union_tag_not_found":
            return Fault(path, f"this key is missing; must be {_any_of(tags)}")
        tag = item["input"].get("kind")
        return Fault(path, f"must be {_any_of(tags)}, got {shown(tag)}{suggest(tag, tags)}")
    if kind == "string_pattern_mismatch":
        return Fault(path, f"must {FORMS[context['pattern']]}, got {shown(item['input'])}")
    return Fault(path, _must(items))


def _must(items: Sequence[dict[str, Any]]) -> str:
    """The sentence for a value; ``items`` has one entry for every alternative that the setting allows."""
    value = items[0]["input"]
    options: list[str] = []
    wanted: list[str] = []
    for item in items:
        context = item.get("ctx", {})
        options += re.findall(r"'([^']*)'", str(context.get("expected", "")))
        phrase = _MUST[item["type"]].format(**context) if item["type"] in _MUST else f"be: {item['msg']}"
        if phrase == "be a number" and isinstance(value, int) and not isinstance(value, bool):
            phrase = "be a finite number"  # an integer that no float can hold
        wanted.append(phrase.replace("have at least 1 entries", "not be empty"))
    if any(phrase in ("be a number", "be a finite number") for phrase in wanted):
        wanted = [phrase for phrase in wanted if phrase != "be a whole number"]
    alternatives = " or ".join(dict.fromkeys(phrase.removeprefix("be ") for phrase in wanted[1:]))
    sentence = f"must {wanted[0]}" + (f" or {alternatives}" if alternatives else "")
    return f"{sentence}, got {shown(value)}{suggest(value, options)}{_quotes(wanted[0], value)}"


def _quotes(wanted: str, value: Any) -> str:
    if wanted == "be text" and isinstance(value, bool | int | float):
        return "; write it in quotes"
    if isinstance(value, str) and wanted in ("be a number", "be a whole number"):
        fits = (
            r"[-+]?[0-9]+"
            if wanted == "be a whole number"
            else r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"
        )
        return "; write it without quotes" if re.fullmatch(fits, value) else ""
    return "; write it without quotes" if wanted == "be true or false" and value in ("true", "false") else ""


def _any_of(options: Sequence[str]) -> str:
    quoted = [repr(option) for option in options]
    return " or ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))


def _meant(path: KeyPath, items: Sequence[dict[str, Any]], schema: type[BaseModel]) -> str | None:
    """The key that a misspelt one stands for."""
    return closest(str(path[-1]), _known_keys(schema, items[0]["loc"][:-1]))


def _known_keys(schema: type[BaseModel], loc: KeyPath) -> list[str]:
    models = sections(_annotation(schema, loc))
    return list(models[0].model_fields) if models else []


def _home(schema: type[BaseModel], loc: KeyPath) -> str | None:
    """Where else the schema has the key at the end of ``loc``."""
    kinds = sections(_annotation(schema, loc[:-2]))
    of_kinds = len(kinds) > 1  # then a step of loc says which
    kind = next((m for m in kinds if of_kinds and loc[-1] in m.model_fields), None)
    to_kind = f"to kind: {kind.model_fields['kind'].annotation.__args__[0]}" if kind else None
    around = loc[: -3 if of_kinds else -2]
    inside = loc[len(around)]
    keys_around = (m.model_fields for m in sections(_annotation(schema, around)) if isinstance(inside, str))
    if around and any(loc[-1] in keys for keys in keys_around):
        beside = f"beside {inside}, not inside it"
        return f"{beside}, or {to_kind}" if to_kind else beside
    if to_kind:
        return to_kind
    homes = list(dict.fromkeys(home for name, home in _all_keys(schema) if name == loc[-1]))
    outermost = [home for home in homes if home.count(".") == min(h.count(".") for h in homes)]
    return f"in {' or '.join(outermost)}" if outermost else None


def _tags(schema: type[BaseModel], loc: KeyPath) -> list[str]:
    """What ``kind`` may be in the section at ``loc``."""
    kinds = [model.model_fields["kind"].annotation for model in sections(_annotation(schema, loc))]
    return [tag for kind in kinds for tag in kind.__args__]


def _annotation(annotation: Any, loc: KeyPath) -> Any:
    """The type that the schema has for a place given in pydantic's steps."""
    for step in loc:
        if isinstance(step, int):
            annotation = _entry(annotation)
            continue
        for model in sections(annotation):
            if step in model.model_fields:
                annotation = model.model_fields[step].annotation
                break
            if step in getattr(getattr(model.model_fields.get("kind"), "annotation", None), "__args__", ()):
                annotation = model
                break
    return annotation


def _entry(annotation: Any) -> Any:
    """The type of a list's entries, through optional and annotated types."""
    if getattr(annotation, "__origin__", None) is list:
        return annotation.__args__[0]
    inner = (_entry(argument) for argument in getattr(annotation, "__args__", ()))
    return next((entry for entry in inner if entry is not None), None)


def sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a type may be, outermost ones only."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in sections(argument)]


def _all_keys(schema: type[BaseModel], home: str = "") -> Iterator[tuple[str, str]]:
    """Every key of a schema and the section that it belongs in, outer sections first."""
    inner: list[tuple[type[BaseModel], str]] = []
    for name, field in schema.model_fields.items():
        yield name, home or "the outermost level"
        entry = "[…]" if _entry(field.annotation) is not None else ""
        inner += [(model, f"{home}.{name}{entry}".lstrip(".")) for model in sections(field.annotation)]
    for model, where in inner:
        yield from _all_keys(model, where)


def closest(word: str, known: Sequence[str]) -> str | None:
    """The known word that another one is probably meant to be, whatever its case."""
    folded = {option.casefold(): option for option in known}
    close = difflib.get_close_matches(word[:80].casefold(), folded, n=1)
    return folded[close[0]] if close else None


def suggest(value: Any, known: Sequence[str]) -> str:
    """``; did you mean 'x'?`` where something is close."""
    close = closest(value, known) if isinstance(value, str) else None
    return f"; did you mean {close!r}?" if close else ""
