"""YAML that this package wrote, read back without being trusted."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import yaml

from ..files import within_64_bits

# However aliases multiply them.
MAX_VALUES = 200_000
MAX_DEPTH = 100


class _WithoutMerges:
    """Merge keys multiply what they merge; this package never writes them."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse to merge."""
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "a merge key", node.start_mark)


class _Loader(_WithoutMerges, yaml.SafeLoader):
    """PyYAML's own, which says that a file is nested too deeply."""


class _FastLoader(_WithoutMerges, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """libyaml's, ten times as fast, which overflows the stack on deep nesting."""


def _is_shallow(text: str) -> bool:
    """Whether nothing can be nested deeply: every level opens a bracket or begins further to the right (one
    more at the same place, a sequence in a mapping)."""
    return text.count("[") + text.count("{") <= 1000 and max(map(len, text.splitlines()), default=0) <= 500


def plain_yaml(text: str) -> Any:
    """What a text of YAML says, in plain values.

    Raises:
        YAMLError, ValueError, RecursionError: if it is none, or nested too deeply.
    """
    return (_FastLoader if _is_shallow(text) else _Loader)(text).get_single_data()


# By its bytes: the config of a run is read by several who ask, and parsing is slow.
@functools.lru_cache(maxsize=4)
def values_of(content: bytes) -> Any:
    """As :func:`plain_yaml`, of a file: bearably many values, and no whole number that nothing computes with.

    Raises:
        YAMLError, ValueError, RecursionError: for other files.
    """
    loaded = plain_yaml(content.decode("utf-8"))
    for count, value in enumerate(_values(loaded)):
        if count > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values, aliases counted each time")
        for part in (value, *(value if isinstance(value, dict) else ())):
            if isinstance(part, int):
                within_64_bits(part)
    return loaded


def _values(value: Any, depth: int = 0) -> Iterator[Any]:
    if depth > MAX_DEPTH:  # whoever copies it goes as deep
        raise ValueError(f"values nested more than {MAX_DEPTH} deep")
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in inner:
        yield from _values(part, depth + 1)
