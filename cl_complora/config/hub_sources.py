"""Schema of Hugging Face's data sets: Parquet files, and what the ``datasets`` package has in its cache."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from .base import PathText, Section, Text, form, refused
from .picture_source import ClassNames, PictureSource
from .yaml_lines import shown


class PictureColumns(Section):
    """What the columns of a Hugging Face data set are called, where that is not clear from their kinds and
    names."""

    image: Text | None = None
    """The column of pictures; by default the one that is declared as such, or holds bytes."""
    label: Text | None = None
    """The column of classes (``fine_label``); by default ``label``, or the only one that has class names."""


def refuse_fraction(source: Section, key: str, why: str) -> None:
    """Refuse a share to set apart for testing where nothing is set apart.

    Args:
        source: which may say ``test_fraction``.
        key: of it, which says what the test is.
        why: the rest of the sentence.
    """
    if "test_fraction" in source.model_fields_set:
        raise refused(f"has no effect with {key}, {why}", "test_fraction", because=[(key,)])


class _Columned(PictureSource):
    columns: PictureColumns = PictureColumns()
    """Names of the columns, where several may be meant."""
    classes: ClassNames | None = None
    """Class names in label order, in place of those that the data set has; needed where it has numbers
    alone."""
    test_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of each class set apart for testing where there is no test part; 1 for all of it."""


class ParquetSource(_Columned):
    """Parquet files of pictures and labels, as the Hugging Face Hub ships them, found by pattern
    (``data/train-*.parquet``)."""

    kind: Literal["parquet"]
    train: PathText | None = None
    """Pattern of the training files."""
    test: PathText | None = None
    """Pattern of the test files."""
    validation: PathText | None = None
    """Pattern of the validation files; the test where there is no other."""

    @model_validator(mode="after")
    def _some_files(self) -> ParquetSource:
        if self.train is None and self.test is None:
            raise refused("needs train, test or both: a pattern of files such as data/train-*.parquet")
        for key in ("test", "validation"):
            if getattr(self, key) is not None:
                refuse_fraction(self, key, "whose pictures are the test")
        return self


SplitName = Annotated[
    str, form(r"^\w+([.-]\w+)*$", "have letters, digits and _ with single . or - between", max_length=200)
]
_OWNED = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?")


def _owned(value: str) -> str:
    if not _OWNED.fullmatch(value):
        raise refused(
            f"must be owner/name as on the Hub, got {shown(value)}; a folder of save_to_disk is root: …"
        )
    return value


class NamedSplits(Section):
    """Which split of a data set is which part."""

    train: SplitName
    """The split to train on."""
    test: SplitName
    """The split to test on."""

    @model_validator(mode="after")
    def _what_is_trained_on_is_no_test(self) -> NamedSplits:
        if self.train == self.test:
            raise refused(
                f"{self.test!r} is the training split; what was trained on is no test. split: {self.test}"
                " sets a test apart",
                "test",
                because=[("train",)],
            )
        return self


class HuggingFaceSource(_Columned):
    """A data set of Hugging Face, from the cache of the ``datasets`` package or a ``save_to_disk`` folder;
    nothing is downloaded."""

    kind: Literal["huggingface"]
    name: Annotated[Text, AfterValidator(_owned)] | None = None
    """``owner/name``, as the Hub calls it."""
    root: PathText | None = None
    """A folder that ``save_to_disk`` wrote, in place of a name."""
    config: SplitName | None = None
    """Which configuration, where the cache holds several."""
    split: SplitName | None = None
    """The only split to use, of which ``test_fraction`` is set apart for testing."""
    splits: NamedSplits | None = None
    """Which splits are trained and tested on; by default those called so (``train``, ``test``,
    ``validation``)."""

    @model_validator(mode="after")
    def _one_place(self) -> HuggingFaceSource:
        if (self.name is None) == (self.root is None):
            raise refused(
                "needs name (owner/name, from the cache) or root (a save_to_disk folder), one of the two"
            )
        for key, other in (("config", "root"), ("split", "splits")):
            if getattr(self, key) is not None and getattr(self, other) is not None:
                raise refused(f"has no effect with {other}", key, because=[(other,)])
        if self.splits is not None:
            refuse_fraction(self, "splits", "which name the split that is the test")
        return self
