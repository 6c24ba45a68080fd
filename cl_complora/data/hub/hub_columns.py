"""Which column of a Hugging Face table holds the pictures, which the labels, and what classes are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...config.hub_sources import PictureColumns
from ...config.yaml_lines import shown
from ...errors import UserError, raise_all
from ...files import parse_json
from ..tables.columns import LABEL, PATH, usual

if TYPE_CHECKING:
    import pyarrow

# As pyarrow's and Hugging Face's words say it.
_IMAGE, _LABEL = "Image", "ClassLabel"
_SOME = 12


@dataclass(frozen=True)
class HubColumns:
    """The columns of a table.

    Attributes:
        image, label: their names.
        names: class names in label order, where the table declares them.
    """

    image: str
    label: str
    names: tuple[str, ...] | None


def hub_columns(schema: pyarrow.Schema, said: PictureColumns, place: str) -> HubColumns:
    """Find the columns by what the source says, by what the table declares (``Image``, ``ClassLabel``), and
    by kind and name.

    Args:
        schema: of the table; ``datasets`` writes its features into the metadata.
        said: names that the source gives.
        place: what stands for the table in messages.

    Raises:
        UserError: for columns that are missing, of another kind, or unclear.
    """
    names = list(schema.names)
    features = _features(schema)
    pictures = [name for name in names if _holds_pictures(schema, name)]
    image = _named(names, said.image, "image", place) or _image(names, pictures, features, place)
    if image not in pictures:
        held = _type(schema, image)
        hint = "; a table of paths is kind: manifest, saved as CSV" if _is_text(schema, image) else ""
        raise UserError(
            f"{place}: column {image!r} must hold pictures, as bytes or {{bytes, path}}, got {held}{hint}"
        )
    others = [name for name in names if name != image]
    label = _named(names, said.label, "label", place) or _label(others, features, place)
    if not (_is_text(schema, label) or _is_whole(schema, label)):
        raise UserError(
            f"{place}: column {label!r} must hold labels, as numbers or texts, got {_type(schema, label)}"
        )
    declared = _class_names(features.get(label), place, label) if _is_whole(schema, label) else None
    return HubColumns(image, label, declared)


def _features(schema: pyarrow.Schema) -> Mapping[str, Any]:
    """Column → what ``datasets`` declares of it; nothing where it has not written the table."""
    try:
        found = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _declared(features: Mapping[str, Any], name: str) -> Any:
    feature = features.get(name)
    return feature.get("_type") if isinstance(feature, dict) else None


def _class_names(feature: Any, place: str, label: str) -> tuple[str, ...] | None:
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == _LABEL else None
    if names is None:
        return None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{place}: column {label!r} declares class names that are no list of texts")
    words = [name.replace("_", " ") for name in names]  # as of folders
    return tuple(words if len(set(words)) == len(set(names)) else names)


def _named(names: Sequence[str], said: str | None, role: str, place: str) -> str | None:
    if said is not None and said not in names:
        raise UserError(f"{place}: columns.{role}: there is no column {shown(said)}; {_found(names)}")
    _refuse_twice(names, said, place)
    return said


def _refuse_twice(names: Sequence[str], name: str | None, place: str) -> None:
    raise_all([f"{place}: the column {name!r} stands there twice"] if names.count(name) > 1 else [])


def _image(names: Sequence[str], pictures: Sequence[str], features: Mapping[str, Any], place: str) -> str:
    declared = [name for name in pictures if _declared(features, name) == _IMAGE] or pictures
    chosen = declared if len(declared) == 1 else usual(declared, PATH)
    if len(chosen) == 1:
        _refuse_twice(names, chosen[0], place)
        return chosen[0]
    if not pictures and (texts := usual(names, PATH)):
        return texts[0]  # of another kind, which is what is told
    raise _unclear(names, declared, "image", "pictures, as bytes or {bytes, path}", place)


def _label(names: Sequence[str], features: Mapping[str, Any], place: str) -> str:
    declared = [name for name in names if _declared(features, name) == _LABEL]
    for chosen in ([LABEL] if LABEL in names else [], declared, usual(names, LABEL)):
        if len(chosen) == 1:
            _refuse_twice(names, chosen[0], place)
            return chosen[0]
        if chosen:
            raise _unclear(names, chosen, "label", "labels", place)
    raise _unclear(names, [], "label", "labels", place)


def _unclear(names: Sequence[str], several: Sequence[str], role: str, what: str, place: str) -> UserError:
    say = f"say which in the source: columns: {{{role}: {several[0] if several else '…'}}}"
    if several:
        those = " and ".join(map(shown, several[:_SOME]))
        return UserError(f"{place}: {what} may be in any of the columns {those}; {say}")
    return UserError(f"{place}: no column is called or declared as one of {what}; {_found(names)}; {say}")


def _found(names: Sequence[str]) -> str:
    return f"found {', '.join(map(shown, names[:_SOME])) or 'none'}{' …' if len(names) > _SOME else ''}"


def _type(schema: pyarrow.Schema, name: str) -> str:
    return shown(str(schema.field(name).type)).strip("'")


def _plain(kind: pyarrow.DataType) -> pyarrow.DataType:
    from pyarrow import types

    return kind.value_type if types.is_dictionary(kind) else kind


def _is_bytes(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


def _holds_pictures(schema: pyarrow.Schema, name: str) -> bool:
    from pyarrow import types

    if schema.names.count(name) > 1:
        return True  # told as such
    kind = schema.field(name).type
    if types.is_struct(kind):
        fields = {kind.field(place).name: kind.field(place).type for place in range(kind.num_fields)}
        return "bytes" in fields and _is_bytes(fields["bytes"])
    return _is_bytes(kind)


def _is_text(schema: pyarrow.Schema, name: str) -> bool:
    from pyarrow import types

    kind = _plain(schema.field(name).type)
    return types.is_string(kind) or types.is_large_string(kind)


def _is_whole(schema: pyarrow.Schema, name: str) -> bool:
    from pyarrow import types

    return types.is_integer(_plain(schema.field(name).type))
