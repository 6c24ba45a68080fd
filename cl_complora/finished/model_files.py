"""Models by name or file: the embedded one, open_clip's, and what ``cl-complora export`` wrote."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import open_clip
from pydantic import ValidationError

from ..clip.classifier import MEASURED_AT_ONCE, ClipClassifier
from ..clip.model import EMBEDDED, LoadedClip, load_clip
from ..config.repositories import is_address
from ..config.scenario import Model
from ..config.tokenizer_files import HUB_CONFIG
from ..errors import UserError


def classifier_of(loaded: LoadedClip, batch_size: int = MEASURED_AT_ONCE) -> ClipClassifier:
    """The model with its text head, for evaluation, where the model is.

    Args:
        loaded: the model.
        batch_size: images at a time.
    """
    classifier = ClipClassifier(
        loaded.model,
        loaded.tokenizer,
        mean=loaded.mean,
        std=loaded.std,
        batch_size=batch_size,
        untouched=loaded.untouched,
    )
    return classifier.to(next(loaded.model.parameters()).device).eval()


def open_model(name: str, pretrained: str | None = None, config: str | None = None) -> LoadedClip:
    """Load a model by name or file.

    Args:
        name: ``embedded``, an open_clip architecture, or a ``.safetensors`` that ``cl-complora export``
            wrote.
        pretrained: open_clip tag or weight file, for an architecture.
        config: open_clip model config (JSON file) of an architecture that open_clip does not know.

    Raises:
        UserError: for a name that is none of these, and for what cannot be loaded.
    """
    for option, value in (("--pretrained", pretrained), ("--model-config", config)):
        if value == "":
            raise UserError(f"{option}: must not be empty")
        if value is not None and name.endswith(".safetensors"):
            raise UserError(f"{option}: an exported checkpoint brings its own; leave this out")
    if name.endswith(".safetensors"):
        return _open_export(Path(os.path.expanduser(name)))
    known = open_clip.list_models()
    if config is None and name != EMBEDDED and name not in known and not is_address(name):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(
            f"{name}: neither a run's folder nor a model{hint}; a model is {EMBEDDED}, a name that "
            "'cl-complora list models' lists, or a .safetensors file that 'cl-complora export' wrote"
        )
    return load_clip(_model(name, pretrained, config))


def _model(name: str, pretrained: str | None, config: str | None) -> Model:
    try:
        return Model(name=name, pretrained=pretrained, config=config)
    except ValidationError as error:
        raise UserError("; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())) from None


def hub_config(model: dict[str, Any], loaded: LoadedClip) -> dict[str, Any]:
    """The architecture with its preprocessing, as open_clip publishes both with weights on the hub."""
    pixels = loaded.pixels
    return {
        "model_cfg": model,
        "preprocess_cfg": {
            "size": list(pixels.size),
            "mean": [float(value) for value in loaded.mean],
            "std": [float(value) for value in loaded.std],
            "interpolation": pixels.interpolation,
            "resize_mode": pixels.resize,
            "fill_color": pixels.fill,
        },
    }


def _open_export(weights: Path) -> LoadedClip:
    config = weights.with_suffix(HUB_CONFIG)
    if not weights.is_file():
        raise UserError(f"{weights}: there is no such file")
    if not config.is_file():
        raise UserError(
            f"{weights}: {config.name}, which 'cl-complora export' writes beside it, is missing; for weights "
            "from elsewhere give the name of their architecture, and the file as --pretrained"
        )
    return load_clip(_model(weights.stem, str(weights.absolute()), str(config.absolute())))
