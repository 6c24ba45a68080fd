"""The weights that a run began with, wherever their files are now, known by their hash."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..clip.model import LoadedClip, load_clip
from ..config import Scenario
from ..config.loading import Located
from ..config.scenario import Model
from ..errors import UserError
from ..store.folder import RunDir
from ..store.moved import model_files
from ..store.provenance import software

_OPTIONS = {"pretrained": "--pretrained", "config": "--model-config"}


def load_pretrained(
    folder: RunDir,
    config: dict[str, Any],
    scenario: Located[Scenario],
    pretrained: str | None = None,
    model_config: str | None = None,
) -> LoadedClip:
    """The model that a run began with.

    Args:
        folder, config, scenario: of the run, as they are now.
        pretrained: its weights (file or tag), where they are not to be looked for.
        model_config: its open_clip model config, likewise.

    Raises:
        UserError: for files that are not there any more, and for others than it began with, with both hashes.
    """
    spec = scenario.value.model
    given = {"pretrained": pretrained, "config": model_config}
    choices = [_choices(folder, config, scenario, key, text) for key, text in given.items()]
    first: UserError | None = None
    for weights, architecture in itertools.product(*choices):
        try:
            found = Model(**{**spec.model_dump(), "pretrained": weights, "config": architecture})
            loaded = load_clip(found, scenario.folder)
            _check(folder.root, config, loaded, weights, architecture)
            return loaded
        except UserError as error:
            first = first or error
    raise first


def _choices(
    folder: RunDir, config: dict[str, Any], scenario: Located[Scenario], key: str, given: str | None
) -> Sequence[str | None]:
    """What to try for the weights or the model config, the likeliest first."""
    option, recorded = _OPTIONS[key], getattr(scenario.value.model, key)
    if given is not None:
        if given == "":
            raise UserError(f"{option}: must not be empty")
        if recorded is None and (key == "config" or scenario.value.model.name == "embedded"):
            name = config["model"]["name"]
            raise UserError(f"{option}: {folder.root} began with the model {name}, which has none to give")
        file = Path(os.path.expanduser(given))
        if key == "config" or file.is_file():
            return [str(file.absolute())]
        return [given]
    files = model_files(folder.root, config, scenario.folder, key)
    if files is None:
        return [recorded]
    if not files:
        what = "weights" if key == "pretrained" else "model config"
        raise UserError(
            f"{folder.root}: the {what} that it began with, {scenario.folder / recorded}, is not there any"
            f" more, nor is it beside the run or its scenario; give the file with {option}"
        )
    return [str(file.absolute()) for file in files]


def _check(
    root: Path, config: dict[str, Any], loaded: LoadedClip, weights: str | None, architecture: str | None
) -> None:
    """Refuse another model than the run began with."""
    recorded = config["model"]
    if loaded.sha256 != recorded["sha256"]:
        raise UserError(
            f"{root}: began with other weights of {loaded.name}: their SHA-256 was {recorded['sha256']}, that"
            f" of {weights or 'its random ones'} is {loaded.sha256}; give the right file with --pretrained"
        )
    if architecture is None:
        return
    # Another torch may spell modules otherwise, another open_clip may know more of a config; an earlier
    # version recorded less.
    now = loaded.beside_weights
    then = {key: recorded.get(key, value) for key, value in now.items()}
    made_with = config.get("software", {})
    spelt_by = {"architecture": "torch", "config_sha256": "open_clip_torch"}
    others = any(
        then[key] != now[key] and made_with.get(package) == software()[package]
        for key, package in spelt_by.items()
    )
    if then["tokenizer_sha256"] != now["tokenizer_sha256"]:
        began = "no tokenizer" if then["tokenizer_sha256"] is None else "a tokenizer"
        raise UserError(
            f"{root}: began with {began} of its own, and what lies beside {architecture} is"
            f" {loaded.own_tokenizer or 'none'}; give the config that the run began with: --model-config"
        )
    channels = len((*loaded.mean, *loaded.std))
    if others or then["preprocessing"][-channels:] != now["preprocessing"][-channels:]:
        raise UserError(
            f"{root}: began with another architecture or preprocessing than {architecture} describes; give"
            " the right file with --model-config"
        )
