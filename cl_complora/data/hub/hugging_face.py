"""Data sets that the ``datasets`` package has on the disk: in its cache, by name, or in a folder of
``save_to_disk``. Nothing is downloaded, and no script of a data set is run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config.hub_sources import HuggingFaceSource
from ...config.yaml_lines import shown
from ...errors import UserError
from ...files import is_utf8, parse_json, read_bytes
from ..names.split_names import roles_of
from .hub_columns import hub_columns
from .hub_pictures import HubPictures, Rows, picture_of, refuse_without

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset, DatasetDict

_BATCH = 256
# What save_to_disk writes beside the Arrow files: of several splits, of one split, and of its columns.
_SPLITS, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"
# Bytes of one of them.
_MAX_LIST = 2**24
# What stands between the parts of a path or of an address, and in no name.
_LEADS = re.compile(r"[/\\:\0]")


class DatasetRows(Rows):
    """One split.

    Args:
        dataset: the split, whose rows lie in memory-mapped files.
        name: of the split.
        place: of the data set.
        folders: where pictures may lie that the rows only name.
    """

    def __init__(self, dataset: Dataset, name: str, place: str, folders: list[str]) -> None:
        self._rows = dataset.with_format("arrow")
        self.name, self.place, self._folders = name, f"{place}, split {name}", folders
        files = [Path(found["filename"]) for found in dataset.cache_files]
        stated = [(file.name, file.stat()) for file in files]
        self.stamp = " ".join(f"{name} {found.st_size} {found.st_mtime_ns}" for name, found in stated)

    def schema(self) -> pyarrow.Schema:
        """As in the base class."""
        return self._rows.features.arrow_schema

    def _batches(self, column: str) -> Iterator[pyarrow.ChunkedArray]:
        with _reading(self.place):
            for batch in self._rows.select_columns([column]).iter(_BATCH):
                found = batch.column(column)
                found.validate(
                    full=True
                )  # offsets of a damaged file lead out of the memory that it is mapped to
                yield found

    def labels(self, column: str) -> list[Any]:
        """As in the base class."""
        return self.shared((label for batch in self._batches(column) for label in batch.to_pylist()), column)

    def stored(self, column: str) -> list[tuple[int | None, str]]:
        """As in the base class; of pictures in the table their lengths are read and not their bytes."""
        from pyarrow import compute, types

        found: list[tuple[int | None, str]] = []
        for batch in self._batches(column):
            if not types.is_struct(batch.type):
                found += [(size, "") for size in compute.binary_length(batch).to_pylist()]
                continue
            lengths = compute.binary_length(compute.struct_field(batch, "bytes")).to_pylist()
            fields = [batch.type.field(place).name for place in range(batch.type.num_fields)]
            named = "path" in fields
            paths = compute.struct_field(batch, "path").to_pylist() if named else [None] * len(lengths)
            found += [
                (self._file_size(path) if size is None and path else size, path or "")
                for size, path in zip(lengths, paths, strict=True)
            ]
        return found

    def _file_size(self, path: str) -> int:
        """Of a picture's own file; that it is not there is told of whoever reads it."""
        try:
            return os.stat(path).st_size
        except (OSError, ValueError):
            return 0

    def picture(self, column: str, row: int) -> bytes:
        """As in the base class."""
        from ..images.pixels import MAX_BYTES

        content, path = picture_of(self._rows[row : row + 1].column(column)[0].as_py())
        if content is not None:
            return content
        if not path:
            raise ValueError("holds no picture")
        place = os.path.realpath(path)
        if not _is_inside(place, self._folders):
            raise ValueError(
                f"names the picture {path}, which lies outside the data set and the cache of Hugging Face"
            )
        return read_bytes(Path(place), MAX_BYTES)


def _is_inside(place: str, folders: Sequence[str]) -> bool:
    return any(os.path.commonpath([folder, place]) == folder for folder in folders)


@contextmanager
def _reading(place: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # readers raise whatever a hostile file leads them to
        told = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{place}: cannot be read by the package datasets: {told}") from None


@contextmanager
def _quietly() -> Iterator[None]:
    """Without its warning of which version the cache holds."""
    from datasets.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _of_cache(name: str, config: str | None) -> DatasetDict:
    import datasets.config
    from datasets.packaged_modules.cache.cache import Cache

    cache = Path(datasets.config.HF_DATASETS_CACHE)
    try:
        with _quietly():
            builder = Cache(
                repo_id=name,
                dataset_name=name.rpartition("/")[2],
                config_name=config,
                version="auto",
                hash="auto",
            )
            with _reading(f"{name} in {cache}"):
                return builder.as_dataset()
    except ValueError as error:
        raise UserError(_how_to_get(name, config, cache, str(error))) from None


def _how_to_get(name: str, config: str | None, cache: Path, error: str) -> str:
    """What to put where, of a data set that the cache does not hold, or holds in several configurations."""
    if error.startswith("There are multiple"):
        those = error.partition("cache: ")[2].partition("\n")[0]
        return f"{name}: {cache} holds several configurations: {those}; say which in the source: config: …"
    others = error.partition("Available configs in the cache: ")[2]
    if others:
        return f"{name}: {cache} holds no configuration {config!r}, but {others}"
    arguments = ", ".join(repr(text) for text in (name, config) if text)
    hint = ""
    import huggingface_hub.constants

    downloads = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"
    if found := next(iter(sorted(downloads.glob("snapshots/*/**/*.parquet"))), None):
        hint = f", or read the Parquet files that are there as kind: parquet ({found.parent})"
    return (
        f"{name}: is not in the cache of Hugging Face ({cache}), and a run downloads nothing; fetch it once"
        f' (python -c "from datasets import load_dataset; load_dataset({arguments})"), here or on a machine'
        f" that is connected, whose folder {cache.name}/{name.replace('/', '___').lower()} goes to {cache};"
        f" or save it there with save_to_disk(FOLDER) and give root: FOLDER in place of the name{hint}"
    )


def refuse_elsewhere(root: Path, folders: Sequence[str]) -> None:
    """Refuse a folder of ``save_to_disk`` whose splits or files lie elsewhere: ``load_from_disk`` joins the
    names that it finds there to the folder, and maps whatever they lead to.

    Args:
        root: the folder.
        folders: real paths of those that links may lead into.

    Raises:
        UserError: naming what names it, or the link.
    """
    splits = _names(root / _SPLITS, "splits", folders)
    for folder in (root, *(root / split for split in splits)):
        files = _names(folder / _STATE, "_data_files", folders)
        for name in (_INFO, *files):
            _refuse_link(folder / name, folders)


def _names(file: Path, key: str, folders: Sequence[str]) -> list[str]:
    """What a list of ``save_to_disk`` names beside itself; nothing where there is no such list."""
    if not os.path.lexists(file):
        return []
    _refuse_link(file, folders)
    try:
        listed = parse_json(read_bytes(file, _MAX_LIST))[key]
        names = [one["filename"] if isinstance(one, dict) else one for one in listed]
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{file}: is damaged, or not what save_to_disk wrote: {key} is no list") from None
    for name in names:
        if not isinstance(name, str) or name in ("", ".", "..") or _LEADS.search(name) or not is_utf8(name):
            raise UserError(f"{file}: {key} must name what lies beside it, by names alone, got {shown(name)}")
    return names


def _refuse_link(file: Path, folders: Sequence[str]) -> None:
    place = os.path.realpath(file)
    if not _is_inside(place, folders):
        raise UserError(f"{file}: is a link that leads out of the data set, to {place}")
    if os.path.exists(place) and not os.path.isfile(place):
        raise UserError(f"{file}: is no regular file")


def _of_folder(root: Path, folders: Sequence[str]) -> dict[str, Dataset] | DatasetDict:
    from datasets import Dataset, load_from_disk

    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "there is no such folder"
        raise UserError(f"{root}: {problem}; root is a folder that save_to_disk wrote")
    refuse_elsewhere(root, folders)
    with _reading(str(root)), _quietly():
        found = load_from_disk(str(root))
    return {str(found.split or "all"): found} if isinstance(found, Dataset) else found


def _parts(config: HuggingFaceSource, found: Mapping[str, Dataset], place: str) -> dict[str, str]:
    """Part → the split that is it."""
    names = list(found)
    there = f"there are {', '.join(map(repr, names))}" if names else "there are none"
    asked = {"split": config.split} if config.split else {}
    if config.splits:
        asked = {"splits.train": config.splits.train, "splits.test": config.splits.test}
    for key, name in asked.items():
        if name not in names:
            raise UserError(f"{place}: {key}: there is no split {name!r}; {there}")
    if config.split:
        return {"train": config.split}
    if config.splits:
        return {"train": config.splits.train, "test": config.splits.test}
    roles = roles_of(names)
    parts = {}
    for part in ("train", "test", "validation"):
        those = getattr(roles, part)
        if len(those) > 1 and part in those:
            those = [part]
        if len(those) > 1:
            raise UserError(
                f"{place}: several splits may be the {part} part; {there}; name them with splits:"
            )
        parts |= {part: those[0]} if those else {}
    if not parts and len(names) == 1:
        return {"train": names[0]}
    if "train" not in parts and "test" not in parts:
        raise UserError(f"{place}: no split is called train or test; {there}; name them with splits:")
    return parts


def open_hugging_face(config: HuggingFaceSource, folder: Path) -> HubPictures:
    """A data set by name from the cache, or from a folder of ``save_to_disk``.

    Raises:
        UserError: where it is not there, which says how to get it, is damaged, or the package is missing.
    """
    refuse_without("datasets", "huggingface")
    import datasets.config
    import huggingface_hub.constants

    cache = (datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE)
    inside = [*cache, huggingface_hub.constants.HF_HUB_CACHE]
    root: Path | str = f"{config.name} {config.config or ''}".rstrip()
    if config.root is not None:
        root = folder / Path(config.root).expanduser()
        inside.append(root)
    folders = [os.path.realpath(os.path.expanduser(str(one))) for one in inside]
    if isinstance(root, Path):
        found, place = _of_folder(root, folders), str(root)
    else:
        found, place = _of_cache(config.name, config.config), config.name
    chosen = _parts(config, found, place)
    parts = {part: [DatasetRows(found[name], name, place, folders)] for part, name in chosen.items()}
    tables = [rows for held in parts.values() for rows in held]
    columns = {rows.name: hub_columns(rows.schema(), config.columns, rows.place) for rows in tables}
    return HubPictures(parts, columns, config, root)
