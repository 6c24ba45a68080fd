"""Schema of the data sources that a task or zero-shot set may name; how each is opened is up to
``data.sources``."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from .base import PathText, Section, Text, refused
from .hub_sources import HuggingFaceSource, ParquetSource, refuse_fraction
from .picture_source import ClassNames, PictureSource
from .yaml_lines import shown

# The world's pictures with captions, which are no classes, and with several objects each.
CAPTIONS = "captions"
TOGETHER = "together"
CAPTIONED = (CAPTIONS, "negatives")


def _with_classes(domain: str) -> str:
    if domain in CAPTIONED:
        raise refused(
            f"{domain!r} has texts and no classes; it is for retrieval: [{{name: …, source: …}}] and for"
            " tasks"
        )
    if domain == TOGETHER:
        raise refused(
            "'together' has several classes a picture; it is for multi_label: [{name: …, source: …}]"
        )
    return domain


class WorldSource(Section):
    """The embedded, procedurally drawn world: ``general`` or one of its few-shot domains."""

    kind: Literal["world"]
    domain: Annotated[Text, AfterValidator(_with_classes)]
    """``general``, or one of its few-shot domains (``cl-complora list datasets``)."""


# Paths as either kind of system has them.
_WAYS = (PurePosixPath, PureWindowsPath)


class Splits(Section):
    """Which folder is which split."""

    train: PathText
    """Folder of the training pictures, below the root."""
    test: PathText
    """Folder of the test pictures, below the root."""

    @field_validator("train", "test")
    @classmethod
    def _below_the_root(cls, value: str) -> str:
        if any(way(value).anchor for way in _WAYS):
            raise refused(f"must be a path from the root, got {shown(value)}")
        return value


class FolderSource(PictureSource):
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

    @model_validator(mode="after")
    def _nothing_to_set_apart(self) -> FolderSource:
        # One folder for both parts is divided here.
        if isinstance(self.splits, Splits) and Path(self.splits.train) != Path(self.splits.test):
            refuse_fraction(self, "splits", "which name the folder of the test")
        return self


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
    """The column of pictures."""
    label: Text | None = None
    """The column of classes."""
    split: Text | None = None
    """The column of parts."""


class ManifestSource(PictureSource):
    """A table (CSV, TSV, JSONL or a JSON list) that names every image: ``path``, ``label`` (a class name, or
    its place in ``classes``), ``split``."""

    kind: Literal["manifest"]
    file: PathText
    """The table."""
    root: PathText | None = None
    """Folder that the paths start from; the file's own by default."""
    classes: ClassNames | None = None
    """Class names in label order; those of the file, sorted, by default."""
    separator: Annotated[Text, AfterValidator(_a_separator)] | None = None
    """Between the cells of a row; by default the one of ``,`` ``;`` tab ``|`` that parts the first line into
    the columns."""
    columns: Columns = Columns()
    """Names of its columns, where they are unusual."""
    test_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of each class set apart for testing where the table has no column of splits; 1 for all of it."""
    suffix: Annotated[Text, AfterValidator(_a_suffix)] | None = None
    """Put behind paths that do not end like a picture's (``.jpg`` where the table lists ids)."""


class CoopSource(PictureSource):
    """CoOp's ``split_zhou_*.json`` with its images; what ``sampler: coop`` and ``clip_lora`` are made for."""

    kind: Literal["coop"]
    file: PathText
    """The ``split_zhou_*.json``."""
    root: PathText
    """Folder that the paths in it start from."""


class DatasetSource(PictureSource):
    """A data set known by name (``cl-complora list datasets``), where torchvision expects it."""

    kind: Literal["dataset"]
    name: Text
    """What ``cl-complora list datasets`` calls it."""
    root: PathText | None = None
    """Folder that holds the data sets; ``$CL_COMPLORA_DATA`` or ``~/data`` by default."""


def _an_extension(value: str) -> str:
    parts = [part.strip().removeprefix(".").lower() for part in value.split(";")]
    if not all(parts) or "/" in value:
        raise refused(f"must be an extension such as jpg, or several as in 'jpg;png', got {shown(value)}")
    return ";".join(parts)


Extension = Annotated[Text, AfterValidator(_an_extension)]


class ShardsSource(PictureSource):
    """WebDataset tar shards, found by pattern (``train-*.tar``, ``train-{000..010}.tar``,
    ``a.tar::b.tar``)."""

    kind: Literal["shards"]
    train: PathText
    """Pattern of the training shards."""
    test: PathText
    """Pattern of the test shards."""
    classes: ClassNames | None = None
    """Class names in label order; needed where labels are numbers."""
    image: Extension | None = None
    """Extension of a sample's picture (``jpg``, ``input.jpg``) where a sample has several; ``jpg;png`` takes
    the first that is there."""
    label: Extension | None = None
    """Extension of a sample's label; by default the first there is of cls, class, json (its ``label``), txt,
    text."""


# Those that read what somebody has stored.
_Stored = (
    FolderSource
    | ManifestSource
    | CoopSource
    | ShardsSource
    | ParquetSource
    | HuggingFaceSource
    | DatasetSource
)
SourceConfig = Annotated[WorldSource | _Stored, Field(discriminator="kind")]


class CaptionsSource(PictureSource):
    """Pictures with captions: JSON lines of ``image`` and ``texts``, COCO's annotations, Karpathy's splits,
    Flickr30k's token file, or a table with a column for either."""

    kind: Literal["captions"]
    file: PathText
    """The file of captions, in any of five layouts."""
    root: PathText | None = None
    """Folder that the names of pictures start from; by default the file's own, or the one beside it where
    COCO and Flickr30k keep theirs."""
    split: Text | None = None
    """Which rows, where the file says of each what split it belongs to; ``test`` by default."""


_PARTED = "since the file then says which pictures are the test"


class CaptionsTaskSource(CaptionsSource):
    """Pictures with captions to train and to test on: two parts of a file, or two files."""

    split: Text | None = None
    """Which rows are trained on, where the file says of each what split it belongs to; ``train`` by
    default."""
    test_file: PathText | None = None
    """The file of the pictures that are tested on, where they have one of their own (COCO's)."""
    test_root: PathText | None = None
    """Folder that the names of pictures in ``test_file`` start from."""
    test_split: Text | None = None
    """Which rows are tested on; ``test`` by default."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the pictures set apart for testing where neither a split nor a ``test_file`` does."""

    @model_validator(mode="after")
    def _root_of_a_file(self) -> CaptionsTaskSource:
        if self.test_root is not None and self.test_file is None:
            raise refused("has no effect without test_file", "test_root")
        # A file that parts nothing is refused where one of its parts is named.
        idle = {"test_file": "whose pictures are the test", "test_split": _PARTED, "split": _PARTED}
        for key, why in idle.items():
            if getattr(self, key) is not None:
                refuse_fraction(self, key, why)
        return self


class WorldCaptionsSource(Section):
    """Pictures of the embedded world that its pretraining never drew, with the captions that it writes."""

    kind: Literal["world"]
    domain: Literal["captions", "negatives"]
    """Pictures with captions, or photographic negatives of such."""


RetrievalSource = Annotated[CaptionsSource | WorldCaptionsSource, Field(discriminator="kind")]


class MultiLabelSource(PictureSource):
    """Pictures that may show several classes: JSON lines of ``image`` and ``labels``, a list of class
    names."""

    kind: Literal["multi-label"]
    file: PathText
    """The JSON lines."""
    root: PathText | None = None
    """Folder that the names of pictures start from; the file's own by default."""
    classes: ClassNames | None = None
    """Class names in label order, also of classes that no picture shows; those of the file, sorted, by
    default."""


class WorldTogetherSource(Section):
    """Pictures of two or three objects of the embedded world, which its pretraining never drew."""

    kind: Literal["world"]
    domain: Literal["together"]
    """Pictures of two or three objects."""


LabelledSource = Annotated[MultiLabelSource | WorldTogetherSource, Field(discriminator="kind")]


def _one_answer(domain: str) -> str:
    return domain if domain in CAPTIONED else _with_classes(domain)


class WorldTaskSource(Section):
    """A few-shot domain of the embedded world, or its pictures with captions."""

    kind: Literal["world"]
    domain: Annotated[Text, AfterValidator(_one_answer)]
    """One of its few-shot domains (``cl-complora list datasets``), or its pictures with captions."""


TaskSource = Annotated[WorldTaskSource | _Stored | CaptionsTaskSource, Field(discriminator="kind")]


def of_captions(source: Section) -> bool:
    """Whether a source has pictures with captions in place of classes."""
    world = isinstance(source, WorldTaskSource | WorldCaptionsSource) and source.domain in CAPTIONED
    return world or isinstance(source, CaptionsSource)
