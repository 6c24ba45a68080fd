"""The scenarios and strategies that ship with the package, by name; any YAML file, by path."""

from __future__ import annotations

import difflib
import functools
import os
from pathlib import Path
from shlex import quote

from ..errors import UserError

PACKAGE = Path(__file__).parents[1]


def shipped(kind: str) -> dict[str, Path]:
    """Name → file of the shipped ``scenario`` or ``strategy`` files (a checkout keeps them beside the
    package)."""
    plural = {"scenario": "scenarios", "strategy": "strategies"}[kind]
    for folder in (PACKAGE / plural, PACKAGE.parent / plural):
        if folder.is_dir() and (files := _files(folder, folder.stat().st_mtime_ns)):
            return dict(files)
    return {}


@functools.lru_cache(maxsize=8)
def _files(folder: Path, changed: int) -> dict[str, Path]:
    """As of the folder's last change: a name is looked up hundreds of times in a sweep."""
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(kind: str, name_or_path: str) -> Path:
    """File of a scenario or strategy given by shipped name or by path.

    Raises:
        UserError: if there is neither; the message lists what there is.
    """
    looks_like_path = name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path or "\\" in name_or_path
    if looks_like_path:
        path = Path(name_or_path)
        if not os.path.isfile(path):
            there = os.path.isdir(path)
            raise UserError(f"{name_or_path}: {_folder(path) if there else 'there is no such file'}")
        return path
    files = shipped(kind)
    if name_or_path in files:
        return files[name_or_path]
    # Unlike a Path, they take a name that is too long for a file.
    path = Path(name_or_path)
    if os.path.isdir(name_or_path) and name_or_path.strip():  # an empty path is this folder
        raise UserError(f"{name_or_path}: {_folder(path)}")
    if path.name and os.path.isfile(beside := path.with_name(f"{name_or_path}.yaml")):
        raise UserError(f"no {kind} named '{name_or_path}'; did you mean the file {beside}?")
    close = difflib.get_close_matches(name_or_path, files, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise UserError(
        f"no {kind} named '{name_or_path}'; {hint}there are {', '.join(files)}, or give a path to a YAML file"
    )


def _folder(path: Path) -> str:
    """What is said of a folder where a file is wanted."""
    return (
        f"is a folder, not a YAML file; cl-complora init {quote(str(path))} writes a scenario for the class"
        " folders in it"
    )


def description(path: Path) -> str:
    """First line of the comment that opens a shipped file."""
    with path.open(encoding="utf-8") as file:
        first = file.readline()
    return first.lstrip("# ").strip()
