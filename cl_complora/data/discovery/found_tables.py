"""Tables that lie beside pictures and may name their classes, where folders do not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ...config.sources import FolderSource, ManifestSource, SourceConfig
from ...errors import UserError
from ...files import is_utf8
from ..folders import open_folder
from ..images.picture_files import is_rubbish
from ..tables.json_files import LINES
from ..tables.manifests import open_manifest

# A file of JSON may be anything, and is not looked into.
_SUFFIXES = (".csv", ".tsv", *LINES)


def is_table(file: Path) -> bool:
    """Whether a file is called like a table."""
    return file.suffix.lower() in _SUFFIXES and not is_rubbish(file.name) and file.is_file()


def tables_in(folder: Path) -> list[Path]:
    """The tables that lie in a folder, by name."""
    return [path for path in sorted(folder.iterdir()) if is_utf8(path.name) and is_table(path)]


def usable_table(folder: Path) -> ManifestSource | None:
    """The table in a folder that can stand for its class folders: it names two classes or more, with pictures
    to train on of each and some to test on, which are all there. None where there is none, or several."""
    found = [config for file in tables_in(folder) if (config := _usable(file)) is not None]
    return found[0] if len(found) == 1 else None


def _usable(file: Path) -> ManifestSource | None:
    try:
        config = ManifestSource(kind="manifest", file=str(file.resolve()))
        source = open_manifest(config, Path("."))
        trained = {item.label for item in source.items("train")}
        is_whole = len(trained) == len(source.class_names) > 1 and bool(source.items("test"))
    except (UserError, OSError, ValueError):  # a table of something else
        return None
    return config if is_whole else None


def folders_or_table(root: Path, test_fraction: float = 0.5) -> FolderSource | ManifestSource:
    """Class folders; the table beside them where they are one class alone, or none.

    Args:
        root: the folder.
        test_fraction: share of each class set apart for testing where nothing else divides the pictures.
    """
    config = FolderSource(kind="folder", root=str(root.resolve()), test_fraction=test_fraction)
    try:
        if len(open_folder(config, Path(".")).class_names) > 1:
            return config
    except UserError:  # told by whoever opens it, if there is no such table
        pass
    table = usable_table(root)
    return config if table is None else table.model_copy(update={"test_fraction": test_fraction})


def how_to_use(table: Path, base: Path | None = None) -> str:
    """What to write into a scenario for a table.

    Args:
        table: the file.
        base: folder of the scenario, which relative paths start from; as the table's is given by default.
    """
    file = table if base is None else os.path.relpath(table.resolve(), base)
    return (
        "a table that names the class of every picture is read with"
        f" source: {{kind: manifest, file: {file}}} in the scenario"
    )


def passed_over(folder: Path, class_names: Sequence[str], base: Path) -> list[str]:
    """What to say of a table beside class folders that are read in its place: of one that could be, and of
    any where there is one class alone.

    Args:
        folder: of the class folders.
        class_names: as they say.
        base: folder of the scenario.
    """
    tables, usable = tables_in(folder), usable_table(folder)
    if usable is not None:
        tables = [Path(usable.file)]
    elif len(class_names) > 1:
        return []
    return [f"{one} lies beside the class folders and is not read; {how_to_use(one, base)}" for one in tables]


def table_notes(
    name: str, root: Path, config: SourceConfig, class_names: Sequence[str], base: Path
) -> list[str]:
    """What to say of a table beside pictures, whether it is read or not.

    Args:
        name: of the task or set.
        root: the folder that was named.
        config: how it is read.
        class_names: as that says.
        base: folder of the scenario.
    """
    if isinstance(config, ManifestSource):
        return [f"{name}: is read by its table {config.file}: folders do not tell its classes"]
    if isinstance(config, FolderSource):
        return [f"{name}: {line}" for line in passed_over(root, class_names, base)]
    return []
