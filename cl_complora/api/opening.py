"""Models for scripts: by name or file, whatever counts as a path."""

from __future__ import annotations

import warnings
from os import PathLike
from typing import TYPE_CHECKING

from . import arguments
from .wording import callers_words, reworded

if TYPE_CHECKING:
    from ..clip.model import LoadedClip


def open_model(
    name: str | PathLike[str],
    pretrained: str | PathLike[str] | None = None,
    config: str | PathLike[str] | None = None,
) -> LoadedClip:
    """Load a model by name or file; what is to say of it, such as that its weights are random, is a warning.

    Args:
        name: ``embedded``, an open_clip architecture, or a ``.safetensors`` that ``cl-complora export``
            wrote.
        pretrained: open_clip tag or weight file, for an architecture.
        config: open_clip model config (JSON file) of an architecture that open_clip does not know.

    Raises:
        UserError: for a name that is none of these, and for what cannot be loaded.
    """
    from ..finished import model_files

    with callers_words():
        loaded = model_files.open_model(
            _text("name", name),
            None if pretrained is None else _text("pretrained", pretrained),
            None if config is None else _text("config", config),
        )
    for note in loaded.notes:
        warnings.warn(reworded(note), stacklevel=2)
    return loaded


def _text(argument: str, given: object) -> str:
    return given if isinstance(given, str) else str(arguments.path(argument, given))
