"""How the weights that open_clip knows for an architecture want their pixels; a file of weights does not
say it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import open_clip

from ..config.normalisation import CLIP, USUAL, Triple

# What of the preprocessing scales pictures, and how CLIP's weights want it.
SCALING = {"resize_mode": "shortest", "interpolation": "bicubic"}


def published_scaling(name: str, notes: list[str]) -> dict[str, str]:
    """Where an architecture's published weights agree on another scaling than CLIP's, that.

    Args:
        name: of the architecture.
        notes: told where they do not agree.
    """
    found = {}
    for key, usual in SCALING.items():
        values = {config.get(key, usual) for config in _configs(name)}
        if len(values) == 1 and values != {usual}:
            found[key] = values.pop()
        elif len(values) > 1:
            notes.append(
                f"published weights of {name} differ in {key} ({', '.join(sorted(values))}): {usual} is"
                f" taken; others need a config file with preprocess_cfg: {{{key}: …}}"
            )
    return found


def published_normalisations(name: str) -> set[tuple[Triple, Triple]]:
    """Normalisations of the published weights of an architecture."""
    found = set()
    for config in _configs(name):
        mean, std = (
            config.get(key) or usual for key, usual in zip(("mean", "std"), USUAL[CLIP], strict=True)
        )
        found.add((tuple(mean), tuple(std)))
    return found


def _configs(name: str) -> Iterator[dict[str, Any]]:
    for other in (name, f"{name}-quickgelu"):
        for tag in open_clip.list_pretrained_tags_by_model(other):
            yield open_clip.get_pretrained_cfg(other, tag)
