"""Schema of the data sources that a task or zero-shot set may name; how each is opened is up to
``data.sources``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import EachOnce, PathText, Section, Text


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


class ManifestSource(Section):
    """A CSV or JSONL file that names every image: ``path``, ``label`` (a class name), ``split``."""

    kind: Literal["manifest"]
    file: PathText
    root: PathText | None = None
    """Folder that the paths start from; the file's own by default."""
    classes: ClassNames | None = None
    """Class names in label order; those of the file, sorted, by default."""


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


class ShardsSource(Section):
    """WebDataset tar shards, found by pattern (``train-*.tar``)."""

    kind: Literal["shards"]
    train: PathText
    test: PathText
    classes: ClassNames | None = None


SourceConfig = Annotated[
    WorldSource | FolderSource | ManifestSource | CoopSource | ShardsSource | DatasetSource,
    Field(discriminator="kind"),
]
