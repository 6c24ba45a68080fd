"""The files of a tokeniser beside a model's config or weights, told without reading them."""

from __future__ import annotations

from pathlib import Path

from .repositories import TOKENIZER_FILES

# Byte pairs of one's own, as open_clip packs CLIP's: beside the config of a model that was trained with them.
MERGES = "bpe.txt.gz"
# The ending of a config in the form that open_clip publishes with weights on the hub, beside exported ones.
HUB_CONFIG = ".open_clip_config.json"
# What transformers may read beside one of those that it is found by.
_PARTS = (
    "config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "sentencepiece.bpe.model",
)


def merges_of(file: Path) -> Path:
    """The byte pairs of exported weights, or of their config, beside them."""
    return file.with_name(f"{_name_of(file)}.{MERGES}")


def folder_of(file: Path) -> Path:
    """The files for transformers of exported weights, or of their config, beside them."""
    return file.with_name(f"{_name_of(file)}-tokenizer")


def _name_of(file: Path) -> str:
    return file.name.removesuffix(HUB_CONFIG) if file.name.endswith(HUB_CONFIG) else file.stem


def merges_beside(config: Path) -> Path | None:
    """Byte pairs under the name of a config, else those of its folder; None where neither is there."""
    return next((p for p in (merges_of(config), config.parent / MERGES) if p.is_file()), None)


def folder_beside(config: Path) -> Path | None:
    """As :func:`merges_beside`, of a folder with files for transformers."""
    places = folder_of(config), config.parent
    return next((p for p in places if any((p / file).is_file() for file in TOKENIZER_FILES)), None)


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a folder that are a tokeniser of transformers."""
    return [folder / name for name in (*TOKENIZER_FILES, *_PARTS) if (folder / name).is_file()]


def files_beside(config: Path) -> list[Path]:
    """Every file that may be the tokeniser of a config's model, of whichever kind the config says."""
    merges, folder = merges_beside(config), folder_beside(config)
    return [*([] if merges is None else [merges]), *([] if folder is None else tokenizer_files(folder))]
