"""The options that name a model, and the settings of a scenario that they stand for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str | None, typer.Option("--model", help="open_clip model instead of the scenario's.")]
ModelConfig = Annotated[
    str | None, typer.Option("--model-config", help="open_clip model config (JSON file).")
]
Pretrained = Annotated[str | None, typer.Option("--pretrained", help="open_clip tag or weight file.")]


def model_settings(model: str | None, config: str | None, pretrained: str | None) -> list[str]:
    """Overrides of a scenario's model; another architecture does not go with the scenario's weights.

    Nor does another model with its picture size and normalisation, which are taken from the model then. A
    config alone is taken for the scenario's own, moved or edited: it keeps both.
    """
    from ..config.model_names import names_a_file
    from ..config.overrides import OfOption
    from ..config.repositories import LOCAL

    settings = []

    def add(key: str, value: str | None, option: str) -> None:
        settings.append(OfOption(f"model.{key}={json.dumps(value)}", option))

    if model is not None or config is not None:
        option = f"--model {model}" if model is not None else f"--model-config {config}"
        name = model or Path(config).stem
        if name.startswith(LOCAL) and (place := name.removeprefix(LOCAL)):
            name = f"{LOCAL}{Path(place).expanduser().resolve()}"
        add("name", name, option)
        others = ("image_size", "mean", "std") if model is not None else ()
        for key in ("pretrained", "config", *others):
            add(key, None, option)
    if config is not None:
        add("config", str(Path(config).resolve()), f"--model-config {config}")
    if pretrained is not None:
        path = Path(os.path.expanduser(pretrained))
        is_file = path.is_file() or names_a_file(pretrained)
        add("pretrained", str(path.resolve()) if is_file else pretrained, f"--pretrained {pretrained}")
    return settings
