"""A model config looked at before open_clip builds a model from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from open_clip.transform import PreprocessCfg

from ..config.model_names import missing_keys
from ..errors import UserError, printable

# Far beyond any tower there is; a model of more is not built but waited for.
MOST_LAYERS = 1000
MOST_SIDE = 4096
MOST = 10_000_000
# Handed on to the tokeniser's own code, which takes others for leave to run Python from the hub.
TOKENIZER_KEYS = ("clean", "strip_sep_token", "language")


def config_faults(config: dict[str, Any], preprocess: Any) -> list[str]:
    """What is wrong with a model config that open_clip would not tell, or not before it is too late."""
    if missing := missing_keys(config):
        return [f"{missing} missing"]
    sections = {
        "vision_cfg": config["vision_cfg"],
        "text_cfg": config["text_cfg"],
        "preprocess_cfg": preprocess,
    }
    faults = [
        f"{key} must be a JSON object" for key, value in sections.items() if not isinstance(value, dict)
    ]
    if faults:
        return faults
    faults += [
        f"{key} must be at most {MOST:,}, got {printable(repr(value))}" for key, value in _too_large(config)
    ]
    for tower in ("vision_cfg", "text_cfg"):
        layers = _layers(config[tower])
        if layers > MOST_LAYERS:
            faults.append(f"{tower}.layers must be at most {MOST_LAYERS}, got {printable(repr(layers))}")
    options = config["text_cfg"].get("tokenizer_kwargs", {})
    strange = [key for key in options if key not in TOKENIZER_KEYS] if isinstance(options, dict) else ["none"]
    if strange:
        allowed = ", ".join(TOKENIZER_KEYS)
        faults.append(
            f"text_cfg.tokenizer_kwargs: only {allowed} are allowed there, got {printable(strange[0])}"
        )
    return faults


def _too_large(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number that is none or too large, with its key."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _too_large(part, f"{key}.{printable(name)}".lstrip("."))
    elif isinstance(value, list):
        for part in value:
            yield from _too_large(part, key)
    elif isinstance(value, int | float) and not abs(value) <= MOST:
        yield key, value


def _layers(tower: dict[str, Any]) -> float:
    layers = tower.get("layers")
    return sum(map(_number, layers)) if isinstance(layers, list) else _number(layers)


def _number(value: Any) -> float:
    return max(0, value) if isinstance(value, int | float) else 0


def preprocess_faults(config: PreprocessCfg) -> list[str]:
    """What is wrong with a model's preprocessing; open_clip takes any values."""
    sizes = [config.size] if isinstance(config.size, int) else config.size
    faults = []
    if not (
        _numbers(sizes, (1, 2)) and all(isinstance(side, int) and 1 <= side <= MOST_SIDE for side in sizes)
    ):
        faults.append(f"size must be one or two whole numbers from 1 to {MOST_SIDE}, got {config.size!r}")
    if not _numbers(config.mean, (3,)):
        faults.append(f"mean must be three numbers, got {config.mean!r}")
    if not (_numbers(config.std, (3,)) and min(config.std) > 0):
        faults.append(f"std must be three numbers greater than 0, got {config.std!r}")
    if not (_numbers([config.fill_color], (1,)) and 0 <= config.fill_color <= 255):
        faults.append(f"fill_color must be from 0 to 255, got {config.fill_color!r}")
    return faults


def _numbers(values: Any, lengths: tuple[int, ...]) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) in lengths
        and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    )


def check_size(name: str, config: dict[str, Any], image_size: int | None = None) -> None:
    """Refuse a model that this machine cannot hold, which the system would end without a word.

    Args:
        name: what it is called.
        config: its open_clip model config.
        image_size: where another than its own is wanted.

    Raises:
        UserError: with the sizes of both.
    """
    vision = config["vision_cfg"] | ({"image_size": image_size} if image_size else {})
    needed = _bytes_of(vision) + _bytes_of(config["text_cfg"])
    there = _memory()
    if there is not None and needed > there:
        held = f"this machine has {there / 1e9:,.0f} GB of memory"
        raise UserError(f"model: the weights of {name} take at least {needed / 1e9:,.0f} GB, and {held}")


def _memory() -> int | None:
    """Bytes of this machine's memory; None where they cannot be asked for."""
    try:
        import psutil
    except ImportError:
        return None
    return psutil.virtual_memory().total


def _bytes_of(tower: dict[str, Any]) -> float:
    """Of a transformer's weights, the larger part of them counted."""
    width, context = _number(tower.get("width")), _number(tower.get("context_length"))
    side, patch = _number(tower.get("image_size")), _number(tower.get("patch_size"))
    positions = (side / patch) ** 2 if patch else 0
    blocks = 12 * width * width * _layers(tower)
    return 4 * (blocks + width * (_number(tower.get("vocab_size")) + context + positions) + context * context)
