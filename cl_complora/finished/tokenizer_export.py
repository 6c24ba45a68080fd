"""A model's own tokeniser beside its exported weights, under their name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..clip.model import LoadedClip
from ..clip.tokenizers import tokenizer_options
from ..config.tokenizer_files import MERGES, folder_of, merges_of, tokenizer_files


def place_of(loaded: LoadedClip, out: Path) -> Path | None:
    """Where the tokeniser of a model is to stand; None where it has none of its own."""
    own = loaded.own_tokenizer
    return None if own is None else folder_of(out) if own.is_dir() else merges_of(out)


def copies(loaded: LoadedClip, out: Path) -> dict[Path, Path]:
    """File beside the checkpoint → what it is a copy of."""
    own, place = loaded.own_tokenizer, place_of(loaded, out)
    if own is None or place is None:
        return {}
    return {place / file.name: file for file in tokenizer_files(own)} if own.is_dir() else {place: own}


def tokenizer_line(name: str, loaded: LoadedClip, text: dict[str, Any]) -> str:
    """The tokeniser in Python, for one who has nothing but open_clip and the files.

    Args:
        name: of the exported checkpoint.
        loaded: the model.
        text: ``text_cfg`` of its config.
    """
    place = place_of(loaded, Path(f"{name}.safetensors"))
    if place is None:
        return f'open_clip.get_tokenizer("{name}")'
    told = {key: value for key, value in tokenizer_options(text).items() if value is not None}
    options = ", ".join(f"{key}={value!r}" for key, value in told.items())
    return f"{mark(place)}, {options})"


def mark(place: Path) -> str:
    """What a page says if, and only if, the tokeniser at this place is that of its model."""
    if place.name.endswith(MERGES):
        return f'open_clip.tokenizer.SimpleTokenizer(bpe_path="{place.name}"'
    return f'open_clip.tokenizer.HFTokenizer("{place.name}"'
