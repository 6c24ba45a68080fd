"""A downloaded data set of the Hugging Face Hub: which of its Parquet files are which part."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...config.hub_sources import ParquetSource
from ...errors import UserError
from ..names.split_names import roles_of

# ``train-00000-of-00002``: one of several files of a part.
_NUMBERED = re.compile(r"(.+?)-\d+-of-\d+(?:-[0-9a-f]+)?")


@dataclass(frozen=True)
class HubFolder:
    """A folder of Parquet files.

    Attributes:
        config: the source that they are, with patterns below the folder.
        left_out: patterns of the files that are called like no part.
    """

    config: ParquetSource
    left_out: tuple[str, ...]


def hub_folder(folder: Path) -> HubFolder | None:
    """What a folder's Parquet files are, in it or in ``data/``; None where it has none.

    Raises:
        UserError: where none is called like the training part, or several are called like one part.
    """
    for inside in ("", "data/"):
        names = sorted(path.name for path in (folder / inside).glob("*.parquet"))
        if names:
            return _sorted(folder / inside, inside, names)
    return None


def _sorted(folder: Path, inside: str, names: Sequence[str]) -> HubFolder:
    patterns: dict[str, str] = {}
    for name in names:
        stem = name.removesuffix(".parquet")
        numbered = _NUMBERED.fullmatch(stem)
        if numbered:
            patterns[numbered[1]] = f"{inside}{glob.escape(numbered[1])}-[0-9]*-of-*.parquet"
        else:
            patterns[stem] = inside + name
    if len(patterns) == 1:
        return HubFolder(ParquetSource(kind="parquet", train=next(iter(patterns.values()))), ())
    roles = roles_of(patterns)
    found = {part: those for part in ("train", "test", "validation") if (those := getattr(roles, part))}
    if "train" not in found or any(len(those) > 1 for those in found.values()):
        raise UserError(
            f"{folder}: which Parquet files are for training and which for the test is not clear from their"
            f" names ({', '.join(patterns)}); say it in a scenario: source: {{kind: parquet, train: …}}"
        )
    config = ParquetSource(kind="parquet", **{part: patterns[those[0]] for part, those in found.items()})
    return HubFolder(config, tuple(patterns[name] for name in (*roles.unlabelled, *roles.others)))


def beside(source: ParquetSource, root: Path, base: Path) -> dict[str, str]:
    """The patterns of a source below ``root`` as they read from another folder, by part."""
    where = os.path.relpath(root.resolve(), base)
    place = glob.escape(where) if glob.has_magic(where) else where
    found = {part: getattr(source, part) for part in ("train", "test", "validation")}
    return {
        part: (Path(place) / pattern).as_posix() for part, pattern in found.items() if pattern is not None
    }
