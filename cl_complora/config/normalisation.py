"""The usual normalisations of pixels, by name, and whether a model says which is its own.

Weights that are given pixels normalised in another way than in their training load without a word and
answer by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import parse_json, read_bytes
from .scenario import Model

Triple = tuple[float, ...]

CLIP = "CLIP's"
# What published image towers were trained with: name → mean and std of pixels in 0..1, by colour channel.
USUAL: dict[str, tuple[Triple, Triple]] = {
    CLIP: ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "none, pixels in 0..1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "pixels in -1..1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
# Of a model config, in bytes; open_clip's own have a few hundred.
MAX_CONFIG = 1_000_000


def written(mean: Triple, std: Triple) -> str:
    """``mean [0.481, 0.458, 0.408] and std [0.269, 0.261, 0.276]``."""
    return f"mean {_shown(mean)} and std {_shown(std)}"


def _shown(values: Triple) -> str:
    return f"[{', '.join(f'{value:.3g}' for value in values)}]"


def assumed(spec: Model, preprocess: Mapping[str, Any], published: set[tuple[Triple, Triple]]) -> str:
    """What a model is taken to be normalised by although nothing says so; empty where something does.

    Args:
        spec: the model as the scenario describes it.
        preprocess: the preprocessing of its config file.
        published: what the published weights of its architecture use.
    """
    missing = [key for key in ("mean", "std") if getattr(spec, key) is None and key not in preprocess]
    if not missing or published == {USUAL[CLIP]}:
        return ""
    whose = "the model's config" if spec.config else f"the weight file of {spec.name}"
    means = dict(zip(("mean", "std"), USUAL[CLIP], strict=True))
    shown = " and ".join(f"{key} {_shown(means[key])}" for key in missing)
    others = [written(*pair) for pair in sorted(published)]
    told = f"; published weights of this architecture use {', or '.join(others)}" if others else ""
    return (
        f"{whose} does not say how pixels are normalised: CLIP's {shown} assumed{told};"
        " set model.mean and model.std if these weights want others"
    )


def unstated(model: Model, folder: Path) -> str:
    """As :func:`assumed`, of a model that has a config file, read without torch.

    Empty for other models, and for a file that cannot be read (which is told when it is loaded).

    Args:
        model: as the scenario describes it.
        folder: where relative file names start from.
    """
    if model.config is None:
        return ""
    file = folder / Path(model.config).expanduser()
    try:
        preprocess = parse_json(read_bytes(file, MAX_CONFIG)).get("preprocess_cfg", {})
    except (OSError, ValueError, AttributeError):
        return ""
    return assumed(model, preprocess, set()) if isinstance(preprocess, dict) else ""
