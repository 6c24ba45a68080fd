"""Schema of the data sources that a task or zero-shot set may name; how each is opened is up to
``data.sources``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

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


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _a_range(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 32:
        return value
    pair = isinstance(value, list) and len(value) == 2 and all(map(_number, value))
    if value is None or (pair and value[0] < value[1]):
        return value
    allowed = "must be [low, high] with low < high, or a number of bits from 1 to 32 (12 for [0, 4095])"
    raise refused(f"{allowed}, got {shown(value)}")


def _a_colour(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 3:
        if all(isinstance(part, int) and not isinstance(part, bool) and 0 <= part <= 255 for part in value):
            return value
    elif isinstance(value, str):
        from PIL import ImageColor

        try:
            if len(ImageColor.getrgb(value)) == 3:
                return value
        except ValueError:
            pass
    allowed = 'must be the name of a colour (white), "#rrggbb" in quotes, or [r, g, b] from 0 to 255'
    told = "got nothing: what follows # is a comment" if value is None else f"got {shown(value)}"
    raise refused(f"{allowed}, {told}")


class PictureSource(Section):
    """What every source of picture files may say of how they are read."""

    range: Annotated[int | list[float] | None, BeforeValidator(_a_range)] = None
    """``[low, high]``, the stored values that become black and white, or a number of bits, for pictures of
    more than eight bits; by default the bits that the training pictures use."""
    background: Annotated[str | list[int], BeforeValidator(_a_colour)] = "white"
    """What transparent pictures are put on: a colour's name, ``"#rrggbb"`` or ``[r, g, b]``."""


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


ClassNames = Annotated[list[Text], Field(min_length=1), EachOnce]


class ManifestSource(PictureSource):
    """A CSV or JSONL file that names every image: ``path``, ``label`` (a class name), ``split``."""

    kind: Literal["manifest"]
    file: PathText
    root: PathText | None = None
    """Folder that the paths start from; the file's own by default."""
    classes: ClassNames | None = None
    """Class names in label order; those of the file, sorted, by default."""


class CoopSource(PictureSource):
    """CoOp's ``split_zhou_*.json`` with its images; what ``sampler: coop`` and ``clip_lora`` are made for."""

    kind: Literal["coop"]
    file: PathText
    root: PathText


class DatasetSource(PictureSource):
    """A data set known by name (``cl-complora list datasets``), where torchvision expects it."""

    kind: Literal["dataset"]
    name: Text
    root: PathText | None = None
    """Folder that holds the data sets; ``$CL_COMPLORA_DATA`` or ``~/data`` by default."""


class ShardsSource(PictureSource):
    """WebDataset tar shards, found by pattern (``train-*.tar``)."""

    kind: Literal["shards"]
    train: PathText
    test: PathText
    classes: ClassNames | None = None


SourceConfig = Annotated[
    WorldSource | FolderSource | ManifestSource | CoopSource | ShardsSource | DatasetSource,
    Field(discriminator="kind"),
]
