"""Schema of the data sources that a task or zero-shot set may name; how each is opened is up to ``data.sources``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from .base import Section, Text, refused


class WorldSource(Section):
    """The embedded, procedurally drawn world: ``general`` or one of its few-shot domains."""

    kind: Literal["world"]
    domain: Text


class FolderSource(Section):
    """Class folders: ``root/train/<class>/…`` and ``root/test/<class>/…``, or ``root/<class>/…`` divided by us."""

    kind: Literal["folder"]
    root: Text
    """A relative path starts from the folder of the scenario file."""
    test_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of each class set apart for testing where the folder has no train/test of its own; 1 for all of it."""
    names: Literal["folders", "imagenet"] = "folders"
    """What classes are called: like their folders, or, for folders named by the 1000 synsets of ImageNet, in words."""

    @field_validator("root")
    @classmethod
    def _home_is_known(cls, value: str) -> str:
        try:
            Path(value).expanduser()
        except RuntimeError:
            raise refused(f"the home folder that ~ stands for is not known, got {value!r}") from None
        return value


SourceConfig = Annotated[WorldSource | FolderSource, Field(discriminator="kind")]
