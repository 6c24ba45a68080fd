"""The data sets people know by name, listed with torchvision's own loading code; nothing is downloaded
here."""

from __future__ import annotations

import os
from pathlib import Path

from ...config.sources import DatasetSource
from ...errors import UserError
from ..items import Source
from .dataset import Dataset, Registered
from .entries import DATASETS

__all__ = ["DATASETS", "Dataset", "check", "fetch", "open_dataset", "open_named", "root_of"]


def root_of(config: DatasetSource, folder: Path) -> Path:
    """Where the data sets known by name lie: as the scenario says, ``$CL_COMPLORA_DATA`` or ``~/data``."""
    if config.root is not None:
        return folder / Path(config.root).expanduser()
    return Path(os.path.expanduser(os.environ.get("CL_COMPLORA_DATA") or "~/data"))


def open_named(config: DatasetSource, folder: Path) -> Source:
    """The data set that a configuration names; :func:`open_dataset` below its root."""
    return open_dataset(config.name, root_of(config, folder))


def open_dataset(name: str, root: Path) -> Source:
    """A data set of the registry below ``root``, the folder that torchvision, too, calls root.

    Raises:
        UserError: for an unknown name, and for data that are missing or incomplete: what, where, and how to
            get it.
    """
    return Registered(_entry(name), Path(root).expanduser())


def check(name: str, root: Path) -> list[str]:
    """What is wrong with a data set on the disk, found without decoding a picture; empty where all is well.

    Raises:
        UserError: for an unknown name.
    """
    entry, root = _entry(name), Path(root).expanduser()
    try:
        source = Registered(entry, root)
        found = {"training": len(source.items("train")), "test": len(source.items("test"))}
    except UserError as error:
        return list(error.messages)
    wanted = {"training": entry.train, "test": entry.test}
    if entry.test_share is not None:
        found, wanted = {"": sum(found.values())}, {"": sum(wanted.values())}
    if entry.train_optional and not found["training"]:
        del wanted["training"]
    return [
        str(entry.fault(root, f"{found[split]} {split} images instead of {count}".replace("  ", " ")))
        for split, count in wanted.items()
        if found[split] != count
    ]


def fetch(name: str, root: Path) -> None:
    """Let torchvision download a data set.

    Raises:
        UserError: where torchvision cannot, or the network does not give it; with where else to get it.
    """
    entry, root = _entry(name), Path(root).expanduser()
    download = getattr(entry.read, "fetch", None)
    if download is None:
        raise entry.fault(root, "torchvision has no download for it")
    root.mkdir(parents=True, exist_ok=True)
    try:
        download(root)
    except Exception as error:  # the network, the disk, a page that is gone: torchvision raises many kinds
        raise entry.fault(
            root, f"not downloaded ({' '.join(f'{type(error).__name__} {error}'.split())[:200]})"
        ) from None


def _entry(name: str) -> Dataset:
    if name not in DATASETS:
        raise UserError(f"data set {name!r}: not one of {', '.join(sorted(DATASETS))}")
    return DATASETS[name]
