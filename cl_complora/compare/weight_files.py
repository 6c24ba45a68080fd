"""The files that a scenario's model is made from, and their content, told without loading it."""

from __future__ import annotations

import hashlib
import time
from functools import lru_cache
from pathlib import Path

from ..config import Scenario
from ..config.repositories import CONFIG, LOCAL, local_folder, weights_in
from ..world import ASSETS

EMBEDDED = "embedded"
# Seconds after which a change is certain to have another time than the one before.
SETTLED = 2.0


def weight_file(scenario: Scenario, folder: Path) -> Path | None:
    """The file of the weights; None where it is not at hand.

    Args:
        folder: of the scenario, which relative names start from.
    """
    model = scenario.model
    if model.name == EMBEDDED:
        return ASSETS / "model.safetensors"
    path = folder / Path(model.pretrained or "").expanduser()
    return path if model.pretrained and path.is_file() else None


def weights_known_by(scenario: Scenario, folder: Path) -> str:
    """The file's SHA-256, with that of the model's own config where the scenario names one; those of the
    files of a ``local-dir:`` model; or the name and tag where the weights are no file at hand."""
    file, model = weight_file(scenario, folder), scenario.model
    if file is None and model.name.startswith(LOCAL):
        return ", ".join([model.name, *model_known_by(scenario, folder)])
    if file is None:
        return f"{model.name}, {model.pretrained}"
    config = None if model.config is None else folder / Path(model.config).expanduser()
    said_by = [config] if config is not None and config.is_file() else []
    return ", ".join(content_of(one) for one in (file, *said_by))


def model_known_by(scenario: Scenario, folder: Path) -> list[str]:
    """SHA-256 of every file at hand that says what the model is: weights, architecture, preprocessing.

    Args:
        folder: of the scenario.
    """
    model = scenario.model
    files = [weight_file(scenario, folder)]
    if model.name == EMBEDDED:
        files += sorted(ASSETS.glob("*.json"))
    if model.config is not None:
        files.append(folder / Path(model.config).expanduser())
    if model.name.startswith(LOCAL):
        place = local_folder(model.name, folder)
        files += [place / CONFIG, weights_in(place)]
    return [content_of(file) for file in files if file is not None and file.is_file()]


def content_of(path: Path) -> str:
    """SHA-256 of a file; one that has not changed since is not read again."""
    stat = path.stat()
    # A disk's clock is coarse: what was just written may be written once more at the same time.
    of = _digest if time.time() - stat.st_mtime > SETTLED else _digest.__wrapped__
    return of(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
