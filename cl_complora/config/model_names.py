"""Names and tags of open_clip's models, read from its package without importing it (that takes torch).

Architectures are JSON files in open_clip. Tags are read out of the source of its ``pretrained.py``, of which
nothing is run; where a version writes them in another way, they are not known here and left to the loading.
"""

from __future__ import annotations

import ast
import difflib
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..files import parse_json, read_bytes
from .loading import Located
from .normalisation import MAX_CONFIG
from .repositories import CONFIG, HUB, address_fault, is_address, local_folder
from .scenario import Model, Scenario

EMBEDDED = "embedded"
_QUICK = "-quickgelu"
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".npz", ".npy", ".ckpt", ".tar", ".msgpack", ".h5")


def check_model(located: Located[Scenario]) -> list[str]:
    """What is wrong with the model that a scenario names, as far as its names and files tell.

    Files of weights are looked for, not opened; a config is read as far as it takes no torch.
    """
    model, faults = located.value.model, []
    if is_address(model.name) and model.config is None:
        fault = address_fault(model.name, located.folder)
        return [located.fault(("model", "name"), fault)] if fault else []
    files = {"config": model.config}
    known = architectures()
    if model.config is None and model.name != EMBEDDED and known and model.name not in known:
        faults.append(located.fault(("model", "name"), unknown_model(model.name, known)))
        return faults
    if model.pretrained is not None and names_a_file(model.pretrained):
        files["pretrained"] = model.pretrained
    for key, text in files.items():
        if text is not None and not (place := located.folder / Path(text).expanduser()).is_file():
            faults.append(located.fault(("model", key), f"there is no file {place}"))
    if model.config is not None and not faults:
        config = located.folder / Path(model.config).expanduser()
        if fault := _config_fault(config):
            faults.append(located.fault(("model", "config"), f"{config}: {fault}"))
    if model.pretrained is not None and "pretrained" not in files:
        own = model.config is not None and known and model.name not in known
        tags = () if own else tags_of(model.name)
        file = located.folder / Path(model.pretrained).expanduser()
        if tags is not None and _clean(model.pretrained) not in tags and not file.is_file():
            faults.append(located.fault(("model", "pretrained"), unknown_tag(model.name, model.pretrained)))
    return faults


def _config_fault(path: Path) -> str:
    """What is wrong with a model config at first sight; empty where nothing is."""
    try:
        content = parse_json(read_bytes(path, MAX_CONFIG))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return f"cannot be read as an open_clip model config (JSON): {reason}"
    config = content.get("model_cfg", content) if isinstance(content, dict) else None
    if not isinstance(config, dict):
        return "not an open_clip model config: not a JSON object"
    missing = missing_keys(config)
    return f"not an open_clip model config: {missing} missing" if missing else ""


def missing_keys(config: dict[str, Any]) -> str:
    """Which keys an open_clip model config lacks, separated by commas; empty where it lacks none."""
    return ", ".join(key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in config)


def brings_weights(model: Model) -> bool:
    """Whether a model has weights that nobody needs to name: those of the package, or beside its address."""
    return (model.name == EMBEDDED and model.config is None) or is_address(model.name)


def is_here(located: Located[Scenario]) -> bool:
    """Whether a scenario's model is complete on this machine, as far as its names tell: published weights may
    have to be fetched."""
    model = located.value.model

    def has(file: str | None) -> bool:
        return file is not None and (located.folder / Path(file).expanduser()).is_file()

    if model.name.startswith(HUB):
        return has(model.config) and has(model.pretrained)
    return model.pretrained is None or has(model.pretrained)


def image_size(located: Located[Scenario]) -> tuple[int, int] | None:
    """(height, width) of the pictures that a scenario's model reads, in pixels; None if no file tells."""
    model = located.value.model
    if model.image_size is not None:
        return model.image_size, model.image_size
    package = _package()
    if is_address(model.name) and model.config is None:
        file = local_folder(model.name, located.folder) / CONFIG
    elif model.config is not None:
        file = located.folder / Path(model.config).expanduser()
    elif model.name == EMBEDDED:
        file = Path(__file__).parent.parent / "world" / "assets" / "embedded_clip.json"
    elif package is not None:
        file = package / "model_configs" / f"{model.name}.json"
    else:
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        told = told.get("model_cfg", told)["vision_cfg"]["image_size"]
        height, width = (told, told) if isinstance(told, int) else told
        return int(height), int(width)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # a damaged file is told when the model is made


def names_a_file(pretrained: str) -> bool:
    """Whether a text is taken for a file of weights that is not there rather than for an unknown tag."""
    return "/" in pretrained or "\\" in pretrained or Path(pretrained).suffix in _SUFFIXES


def unknown_model(name: str, known: list[str]) -> str:
    """The sentence about a name that open_clip does not have, with the nearest that it has."""
    spelt = {other.lower(): other for other in (EMBEDDED, *known)}
    close = [spelt[other] for other in difflib.get_close_matches(name.lower(), spelt, n=3)]
    hint = f"; did you mean {' or '.join(close)}?" if close else "; 'cl-complora list models' lists them"
    return f"{name!r} is not an open_clip model{hint}"


def unknown_tag(name: str, tag: str) -> str:
    """The sentence about a tag that a model does not have, with those that it has, the nearest first."""
    tags = list(tags_of(name) or ())
    close = difflib.get_close_matches(_clean(tag), tags, n=1)
    hint = f"; did you mean {close[0]}" if close else ""
    return (
        f"{name} has no weights {tag!r} (neither a file nor a tag){hint}; tags: {', '.join(tags) or 'none'}"
    )


@cache
def architectures() -> list[str]:
    """Names of open_clip's own models; none where it cannot be found."""
    package = _package()
    return [] if package is None else sorted(file.stem for file in (package / "model_configs").glob("*.json"))


def tags_of(name: str) -> tuple[str, ...] | None:
    """Tags of a model and of its QuickGELU form; None where they cannot be told."""
    known = _tags()
    if known is None:
        return None
    base = name.removesuffix(_QUICK)
    tags = known.get(base, {})
    return tuple(tag for tag, quick in tags.items() if quick or base == name)


@cache
def _tags() -> dict[str, dict[str, bool]] | None:
    """Model → tag → whether its weights were trained with QuickGELU."""
    package = _package()
    try:
        tree = ast.parse((package / "pretrained.py").read_text(encoding="utf-8"))
        named = {
            statement.targets[0].id: statement.value
            for statement in tree.body
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        }
        table = named["_PRETRAINED"]
        found = {}
        for key, value in zip(table.keys, table.values, strict=True):
            call = named[value.id] if isinstance(value, ast.Name) else value
            found[key.value] = {tag.arg: _is_quick(tag.value) for tag in call.keywords}
    except (TypeError, OSError, SyntaxError, ValueError, KeyError, AttributeError):
        return None
    return found


def _is_quick(settings: ast.Call) -> bool:
    return any(part.arg == "quick_gelu" and part.value.value is True for part in settings.keywords)


def _package() -> Path | None:
    spec = find_spec("open_clip")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _clean(tag: str) -> str:
    return tag.lower().replace("-", "_")
