"""The commands that make a run or a comparison again."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..config import load_scenario, load_strategy
from ..config.catalog import shipped
from ..config.loading import Located
from ..config.overrides import lasting
from ..config.recorded import with_drift_as_it_was
from ..errors import UserError
from ..files import digits, slug
from ..store.named_runs import HOME

# What does not change a run and is not recorded with it.
_LEFT_OUT = {"scenario": {"seeds", "description"}, "strategy": {"description", "about", "sweep"}}
# More settings than this are no command that anyone would type: the file is another one now.
MOST_SETTINGS = 12
_LOADERS: dict[str, Callable[[str, Sequence[str]], Located]] = {
    "scenario": load_scenario,
    "strategy": load_strategy,
}


class _Other(Exception):
    """A file says something that no setting on the command line leads back from."""


def run_command(config: dict[str, Any], folder: Path | None = None) -> str | None:
    """The command that makes a run again; None where the files that it was made from are gone or too
    different.

    The files are read again: where they differ from the recorded settings, the differences become ``--set``.

    Args:
        config: the run's config.yaml.
        folder: where the run is; the command aims at it where the folders above it are named as a run's are.
    """
    changed = changed_settings(config)
    if changed is None:
        return None
    words = ["cl-complora", "run", _source("scenario", config), "--strategy", _source("strategy", config)]
    words += [word for setting in changed for word in ("--set", setting)]
    words += ["--seed", str(config.get("seed", 0)), "--device", str(config.get("device", "auto"))]
    if config["strategy"].get("plugin"):
        words.append("--allow-plugins")
    words += _aimed_at(folder, config) if folder is not None else []
    threads = config.get("threads")
    return (f"OMP_NUM_THREADS={threads} " if threads else "") + shlex.join(words)


def _aimed_at(folder: Path, config: dict[str, Any]) -> list[str]:
    """``--variant`` and ``--out`` where a run is not where it would be without them."""
    above = [slug(str(config[kind]["name"])) for kind in ("strategy", "scenario")]
    parents = list(Path(os.path.abspath(folder)).parents)
    names = [parent.name for parent in parents]
    if names[:2] == above:
        words, out = [], parents[2:3]
    elif names[1:3] == above:
        words, out = ["--variant", names[0]], parents[3:4]
    else:
        return []
    return [*words, "--out", str(out[0])] if out and out[0].resolve() != HOME.resolve() else words


def changed_settings(config: dict[str, Any]) -> list[str] | None:
    """``strategy.training.steps=2``: what a run has set otherwise than its two files; None where they cannot
    be compared with it any more.

    Args:
        config: the run's config.yaml.
    """
    changed: list[str] = []
    for kind in ("scenario", "strategy"):
        try:
            settings = _settings(kind, _source(kind, config), _wanted(kind, config))
        except (_Other, UserError, OSError):
            return None
        changed += [f"{kind}.{key}={_told(value)}" for key, value in settings]
    return changed


def compared_settings(request: dict[str, Any]) -> list[str]:
    """``strategy.training.steps=2``: what a comparison has set for all of its methods."""
    return [
        f"{kind}.{text.removeprefix(f'{kind}.')}"
        for kind in ("scenario", "strategy")
        for text in request.get(f"{kind}_settings") or ()
    ]


def _source(kind: str, config: dict[str, Any]) -> str:
    """Name of a shipped file, or the path as recorded."""
    path = Path(str((config.get("files") or {}).get(kind, config[kind]["name"])))
    own = shipped(kind).get(path.stem)
    moved = own is not None and (
        path.name == path.stem or path.parent.name == own.parent.name and not path.exists()
    )
    return path.stem if own is not None and (moved or path.exists() and path.samefile(own)) else str(path)


def _wanted(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """What a run was made with, by today's defaults."""
    if kind != "strategy":
        return config[kind]
    strategy = load_strategy(_source(kind, config)).value
    return with_drift_as_it_was(config[kind], strategy, config["scenario"].get("protocol"))


def _settings(kind: str, source: str, wanted: dict[str, Any]) -> list[tuple[str, Any]]:
    """What has to be set for the file to say what was recorded.

    Raises:
        UserError, OSError: if the file cannot be read any more.
        _Other: if that does not lead there.
    """
    settings = _differences(_LOADERS[kind](source, ()), kind, wanted)
    overrides = [f"{key}={_told(value)}" for key, value in settings]
    if len(settings) > MOST_SETTINGS or _differences(_LOADERS[kind](source, overrides), kind, wanted):
        raise _Other
    return settings


def _differences(located: Located, kind: str, wanted: dict[str, Any]) -> list[tuple[str, Any]]:
    whole, chosen = (
        located.value.model_dump(mode="json", exclude=_LEFT_OUT[kind], exclude_defaults=only)
        for only in (False, True)
    )
    return list(_differing(whole, chosen, wanted, ""))


def _differing(whole: Any, chosen: Any, wanted: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Key path and recorded value of what differs; ``chosen`` is the part of ``whole`` that is no default."""
    if isinstance(whole, dict) and isinstance(wanted, dict):
        chosen = chosen if isinstance(chosen, dict) else {}
        # A run of an older version does not have the settings of today, which then must be at their defaults.
        if not wanted.keys() <= whole.keys() or any(name in chosen for name in whole.keys() - wanted.keys()):
            raise _Other
        for name in wanted:
            yield from _differing(
                whole[name], chosen.get(name), wanted[name], f"{key}.{name}" if key else name
            )
    elif isinstance(whole, list) and isinstance(wanted, list) and len(whole) == len(wanted):
        inner = chosen if isinstance(chosen, list) else [None] * len(whole)
        for place, parts in enumerate(zip(whole, inner, wanted, strict=True)):
            yield from _differing(*parts, f"{key}.{place}")
    elif whole != wanted:
        yield key, wanted


def _told(value: Any) -> str:
    return value if isinstance(value, str) and value.isidentifier() else json.dumps(value, ensure_ascii=False)


def compare_command(request: dict[str, Any], folder: Path | None = None, plugins: bool = False) -> str:
    """The command that makes a comparison again.

    Args:
        request: as comparison.json has it.
        folder: where the comparison is, among whose runs those that are there already are found.
        plugins: whether a strategy names code of the user's own.
    """
    words = ["cl-complora", "compare", request["scenario"], "--strategies", ",".join(request["strategies"])]
    words += ["--seeds", _listed(request["seeds"])]
    sweep = request.get("sweep")
    if sweep == {}:
        words += ["--sweep-from", "strategy"]
    for key, values in (sweep or {}).items():
        words += ["--sweep", f"{key}={','.join(map(digits, values))}"]
    if sweep is not None:
        words += ["--sweep-seeds", _listed(request["sweep_seeds"])] if request.get("sweep_seeds") else []
        words += ["--metric", request["metric"], "--validation-shots", str(request["validation_shots"])]
        words += ["--floor", digits(request["floor"])] if request.get("floor") is not None else []
    words += ["--reference", request["reference"]] if request.get("reference") else []
    words += [word for setting in lasting(compared_settings(request)) for word in ("--set", setting)]
    words += ["--allow-plugins"] if plugins else []
    if folder is not None and folder.resolve().parent != HOME.resolve():
        words += ["--out", str(folder.parent)]
    return shlex.join(words)


def _listed(values: Sequence[int]) -> str:
    return ",".join(map(str, values))
