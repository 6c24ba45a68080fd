"""Schema of the data sources that a task or zero-shot set may name; how each is opened is up to
``data.sources``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from .base import EachOnce, PathText, Section, Text, refused
from .yaml_lines import shown


class WorldSource(Section):
    """The embedded, procedurally drawn world: ``general`` or one of its few-shot domains."""

    kind: Literal["world"]
    domain: Text


class Splits(Section):
    """Which folder is which split."""

    train: PathText
    test: PathText


class FolderSource(Section):
    """Class folders: ``root/train/<class>/…`` and ``root/test/<class>/…``, or ``root/<class>/…`` divided by
    us."""

    kind: Literal["folder"]
    root: PathText
    """A relative path starts from the folder of the scenario file."""
    test_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of each class set apart for testing where the folder has no train/test of its own; 1 for all of
    it."""
    names: Literal["folders", "imagenet"] = "folders"
    """What classes are called: like their folders, or, for folders named by the 1000 synsets of ImageNet, in
    words."""
    splits: Literal["auto", "none"] | Splits = "auto"
    """Which folders divide the pictures: those called like splits (``train``, ``Testing``, ``seg_test``,
    ``val``),
    none, or the two that are named."""
    exclude: list[Text] = []
    """Patterns of names, or of paths below the root, to leave out: ``["*_mask.png", "old/*"]``."""


ClassNames = Annotated[list[Text], Field(min_length=1), EachOnce]


SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}


def _a_separator(value: str) -> str:
    value = SEPARATORS.get(value, value)
    if len(value) != 1 or value.isalnum() or value in "\"'\r\n\0\\":
        known = ", ".join(SEPARATORS)
        raise refused(f"must be one character between the cells of a row, or {known}, got {shown(value)}")
    return value


def _a_suffix(value: str) -> str:
    value = value if value.startswith(".") else f".{value}"
    if not value[1:].replace(".", "").isalnum() or len(value) > 16:
        raise refused(f"must be the end of a file's name such as .jpg, got {shown(value)}")
    return value


class Columns(Section):
    """What a table's columns (or the keys of its JSON objects) are called, where that is not clear from
    their names."""

    path: Text | None = None
    label: Text | None = None
    split: Text | None = None


class ManifestSource(Section):
    """A table (CSV, TSV, JSONL or a JSON list) that names every image: ``path``, ``label`` (a class name, or
    its place in ``classes``), ``split``."""

    kind: Literal["manifest"]
    file: PathText
    root: PathText | None = None
    """Folder that the paths start from; the file's own by default."""
    classes: ClassNames | None = None
    """Class names in label order; those of the file, sorted, by default."""
    separator: Annotated[Text, AfterValidator(_a_separator)] | None = None
    """Between the cells of a row; by default the one of ``,`` ``;`` tab ``|`` that parts the first line into
    the columns."""
    columns: Columns = Columns()
    suffix: Annotated[Text, AfterValidator(_a_suffix)] | None = None
    """Put behind paths that do not end like a picture's (``.jpg`` where the table lists ids)."""


class CoopSource(Section):
    """CoOp's ``split_zhou_*.json`` with its images; what ``sampler: coop`` and ``clip_lora`` are made for."""

    kind: Literal["coop"]
    file: PathText
    root: PathText


class DatasetSource(Section):
    """A data set known by name (``cl-complora list datasets``), where torchvision expects it."""

    kind: Literal["dataset"]
    name: Text
    root: PathText | None = None
    """Folder that holds the data sets; ``$CL_COMPLORA_DATA`` or ``~/data`` by default."""


def _an_extension(value: str) -> str:
    parts = [part.strip().removeprefix(".").lower() for part in value.split(";")]
    if not all(parts) or "/" in value:
        raise refused(f"must be an extension such as jpg, or several as in 'jpg;png', got {shown(value)}")
    return ";".join(parts)


Extension = Annotated[Text, AfterValidator(_an_extension)]


class ShardsSource(Section):
    """WebDataset tar shards, found by pattern (``train-*.tar``, ``train-{000..010}.tar``,
    ``a.tar::b.tar``)."""

    kind: Literal["shards"]
    train: PathText
    test: PathText
    classes: ClassNames | None = None
    """Class names in label order; needed where labels are numbers."""
    image: Extension | None = None
    """Extension of a sample's picture (``jpg``, ``input.jpg``) where a sample has several; ``jpg;png`` takes
    the first that is there."""
    label: Extension | None = None
    """Extension of a sample's label; by default the first there is of cls, class, json (its ``label``), txt,
    text."""


SourceConfig = Annotated[
    WorldSource | FolderSource | ManifestSource | CoopSource | ShardsSource | DatasetSource,
    Field(discriminator="kind"),
]
