"""The files that a scenario's model is made from, and their content, told without loading it."""

from __future__ import annotations

import hashlib
import time
from functools import lru_cache
from pathlib import Path

from ..config import Scenario
from ..config.repositories import CONFIG, LOCAL, local_folder, weights_in
from ..config.tokenizer_files import files_beside
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
    """The file's SHA-256, or the name and tag where the weights are no file at hand, with those of the
    model's own config and tokeniser where the scenario names one; of a ``local-dir:`` model those of its
    files."""
    file, model = weight_file(scenario, folder), scenario.model
    if file is None and model.name.startswith(LOCAL):
        return ", ".join([model.name, *model_known_by(scenario, folder)])
    weights = f"{model.name}, {model.pretrained}" if file is None else content_of(file)
    return ", ".join([weights, *map(content_of, _said_beside(scenario, folder))])


def _said_beside(scenario: Scenario, folder: Path) -> list[Path]:
    """The config of a model of one's own, and its tokeniser."""
    if scenario.model.config is None:
        return []
    config = folder / Path(scenario.model.config).expanduser()
    return [config, *files_beside(config)] if config.is_file() else []


def model_known_by(scenario: Scenario, folder: Path) -> list[str]:
    """SHA-256 of every file at hand that says what the model is: weights, architecture, preprocessing, words;
    name and tag where the weights are no such file.

    Args:
        folder: of the scenario.
    """
    model, weights = scenario.model, weight_file(scenario, folder)
    if model.name.startswith(LOCAL):
        place = local_folder(model.name, folder)
        files = [weights, place / CONFIG, weights_in(place), *files_beside(place / CONFIG)]
        return [content_of(file) for file in files if file is not None and file.is_file()]
    files = [*([] if weights is None else [weights]), *_said_beside(scenario, folder)]
    if model.name == EMBEDDED:
        files += sorted(ASSETS.glob("*.json"))
    by_name = [f"{model.name}, {model.pretrained}"] if weights is None else []
    return [*by_name, *map(content_of, files)]


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
