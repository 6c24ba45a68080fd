"""The tokeniser of a model: CLIP's own byte pairs, or one of transformers', from files beside the model where
they are."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
from torch import Tensor

from ..config.repositories import TOKENIZER_FILES
from ..errors import UserError

# Byte pairs of one's own, as open_clip packs CLIP's: beside the config of a model that was trained with them.
MERGES = "bpe.txt.gz"
_MOST = 1 << 24
EXTRA = "pip install 'cl_complora[transformers]'"


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


def own_tokenizer(name: str, beside: Path | None) -> Path | None:
    """Where the tokeniser of a model lies that brings its own.

    Args:
        name: of an architecture that open_clip knows.
        beside: folder of the model's config, or of the files alone.

    Returns:
        A file of byte pairs, or a folder of files for transformers; None where the tokeniser is CLIP's, or
        comes from the hub.
    """
    if beside is None:
        return None
    if _text_config(name).get("hf_tokenizer_name"):
        return beside if any((beside / file).is_file() for file in TOKENIZER_FILES) else None
    return beside / MERGES if (beside / MERGES).is_file() else None


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a folder that are a tokeniser of transformers."""
    return [folder / name for name in (*TOKENIZER_FILES, *_PARTS) if (folder / name).is_file()]


def load_tokenizer(name: str, own: Path | None = None) -> Callable[..., Tensor]:
    """Texts → ``n × context`` tokens, as the model of this architecture reads them.

    Args:
        name: of an architecture that open_clip knows.
        own: its own tokeniser (:func:`own_tokenizer`); CLIP's or the hub's else.

    Raises:
        UserError: where transformers is needed and missing.
        Exception: of many kinds, for files that are missing, damaged or cannot be fetched.
    """
    text = _text_config(name)
    published = text.get("hf_tokenizer_name")
    if not published:
        return open_clip.get_tokenizer(name) if own is None else _of_merges(own, text)
    if find_spec("transformers") is None:
        raise UserError(
            f"model: the tokeniser of {name} ({published}) needs the package transformers: {EXTRA}"
        )
    return open_clip.tokenizer.HFTokenizer(
        published if own is None else str(own),
        trust_remote_code=False,  # else a tokeniser's own Python could be run after one careless answer
        **tokenizer_options(text),
    )


def tokenizer_options(text: dict[str, Any]) -> dict[str, Any]:
    """What open_clip's tokenisers are told beside their files; ``text`` is a model's ``text_cfg``."""
    options = {"context_length": text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)}
    if text.get("hf_tokenizer_name"):
        options |= {"tokenizer_mode": text.get("tokenizer_mode"), **text.get("tokenizer_kwargs", {})}
    return options


def _text_config(name: str) -> dict[str, Any]:
    return (open_clip.get_model_config(name) or {}).get("text_cfg", {})


def _of_merges(file: Path, text: dict[str, Any]) -> Callable[..., Tensor]:
    """CLIP's tokeniser with the merges of a file, which must be as many as the model has words for."""
    with gzip.open(file) as content:
        if len(content.read(_MOST + 1)) > _MOST:
            raise UserError(f"model.config: {file} unpacks to more than {_MOST:,} bytes")
    made = open_clip.tokenizer.SimpleTokenizer(bpe_path=str(file), **tokenizer_options(text))
    if made.vocab_size != text.get("vocab_size", made.vocab_size):
        raise UserError(
            f"model.config: {file} makes {made.vocab_size:,} tokens, the model has {text['vocab_size']:,}"
        )
    return made
