"""Where the files that a run was made from are now: a project may have been moved since, or a file in it.

config.yaml keeps every place twice, absolute and as seen from the run's folder, so that a project that is
moved as a whole is found again. What is found is never trusted for its place: weights are compared by their
hash, pictures by the manifests of the run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..config import Scenario, Strategy
from ..config.catalog import shipped
from ..config.loading import Located
from ..config.model_names import names_a_file

# Keys of a scenario that hold places of data.
PLACES = ("root", "file", "train", "test", "split_file", "test_file", "test_root")
# Sections of a scenario that name data.
SECTIONS = ("tasks", "zero_shot", "retrieval", "multi_label", "reference")
# Folders around a run's that are looked into: seed, strategy, scenario, runs, the project and one more.
_AROUND = 6


def places_of(root: Path, scenario: Located[Scenario], strategy: Located[Strategy]) -> dict[str, str]:
    """The ``files`` of a run's config.yaml: where it was made from."""
    files = {kind: Path(one.file).resolve() for kind, one in (("scenario", scenario), ("strategy", strategy))}
    places = {kind: str(file) for kind, file in files.items()}
    model = scenario.value.model
    for key, text in (("pretrained", model.pretrained), ("config", model.config)):
        if text is not None:
            files[key] = (scenario.folder / Path(text).expanduser()).resolve()
    for key, file in files.items():
        if file.is_file():
            with suppress(ValueError):  # another drive
                places[f"{key}_from_run"] = os.path.relpath(file, root.resolve())
    return places


def find_file(root: Path, files: dict[str, str], kind: str) -> Path:
    """A run's ``scenario`` or ``strategy`` file as it lies now; where it was, if it is nowhere.

    Only the folder that it lies in is needed, so the folder is found as well where the file itself is gone.
    """
    recorded = Path(files[kind])
    seen = _seen_from(root, files.get(f"{kind}_from_run"))
    guesses = [recorded, *seen, *(folder / recorded.name for folder in _around(root))]
    own = shipped(kind).get(recorded.stem)
    if own is not None and recorded.parent.name == own.parent.name:
        guesses.append(own)  # of a package that was installed elsewhere
    found = next((guess for guess in guesses if _is(guess)), None)
    return found or next((guess for guess in (recorded, *seen) if _is(guess.parent, Path.is_dir)), recorded)


def rebased(scenario: dict[str, Any], recorded: Path, found: Path) -> dict[str, Any]:
    """A recorded scenario whose absolute places below the project's old folder are below its new one.

    Args:
        scenario: as config.yaml has it.
        recorded, found: its file, then and now.
    """
    old, new = recorded, found
    while old.name == new.name and old != old.parent and new != new.parent:
        old, new = old.parent, new.parent
    if recorded == found or _is(old, Path.exists):
        return scenario
    return {key: _moved(part, old, new) if key in SECTIONS else part for key, part in scenario.items()}


def _moved(part: Any, old: Path, new: Path, key: str = "") -> Any:
    if isinstance(part, dict):
        return {name: _moved(value, old, new, name) for name, value in part.items()}
    if isinstance(part, list):
        return [_moved(value, old, new) for value in part]
    if key in PLACES and isinstance(part, str) and Path(part).is_relative_to(old):
        return str(new / Path(part).relative_to(old))
    return part


def model_files(root: Path, config: dict[str, Any], folder: Path, key: str) -> list[Path] | None:
    """Files that may be a run's weights or model config, the likeliest first.

    Args:
        root: the run's folder.
        config: its config.yaml.
        folder: that its scenario lies in now.
        key: ``pretrained`` or ``config``.

    Returns:
        Those that are there; None where the run names no file (but a tag, or nothing).
    """
    text = (config["scenario"].get("model") or {}).get(key)
    if text is None:
        return None
    recorded, seen = folder / Path(os.path.expanduser(text)), config["files"].get(f"{key}_from_run")
    if not (key == "config" or seen or _is(recorded) or names_a_file(text)):
        return None
    # As seen from Windows or not: the name is what stands after the last of either.
    name = text.replace("\\", "/").rpartition("/")[2]
    guesses = [recorded, *_seen_from(root, seen), folder / name]
    guesses += [place / name for place in (root, *_around(root), Path.cwd())]
    there: dict[Path, Path] = {}
    for guess in guesses:
        if _is(guess):
            there.setdefault(guess.resolve(), guess)
    return list(there.values())


def config_now(root: Path, config: dict[str, Any]) -> dict[str, Any]:
    """A run's config.yaml with the places where its files are now."""
    files = dict(config.get("files") or {})
    for kind in ("scenario", "strategy"):
        if kind in files:
            files[kind] = str(find_file(root, files, kind))
    if "scenario" not in files:
        return config
    folder, recorded = Path(files["scenario"]).parent, Path(config["files"]["scenario"])
    scenario = rebased(config["scenario"], recorded, Path(files["scenario"]))
    model = dict(scenario.get("model") or {})
    for key in ("pretrained", "config"):
        found = model_files(root, config, folder, key)
        if found and not _is(folder / Path(os.path.expanduser(model[key]))):
            model[key] = str(found[0].resolve())
    return {**config, "files": files, "scenario": {**scenario, "model": model} if model else scenario}


def _is(path: Path, kind: Callable[[Path], bool] = Path.is_file) -> bool:
    """Whether there is a file; what none can be called, and what may not be looked at, is not there."""
    try:
        return kind(path)
    except OSError:
        return False


def _seen_from(root: Path, relative: str | None) -> list[Path]:
    return [] if relative is None else [Path(os.path.normpath(root.resolve() / relative))]


def _around(root: Path) -> Iterator[Path]:
    yield from list(root.resolve().parents)[:_AROUND]
