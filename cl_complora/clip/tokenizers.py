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


def load_tokenizer(name: str, beside: Path | None = None) -> Callable[..., Tensor]:
    """Texts → ``n × context`` tokens, as the model of this architecture reads them.

    Args:
        name: of an architecture that open_clip knows.
        beside: folder of the model's config; a tokeniser whose files lie there is read from them, and from
            the hub else. ``bpe.txt.gz`` there holds byte pairs of one's own.

    Raises:
        UserError: where transformers is needed and missing.
        Exception: of many kinds, for files that are missing, damaged or cannot be fetched.
    """
    text: dict[str, Any] = (open_clip.get_model_config(name) or {}).get("text_cfg", {})
    published = text.get("hf_tokenizer_name")
    if not published and beside is not None and (beside / MERGES).is_file():
        return _of_merges(beside / MERGES, text)
    if not published:
        return open_clip.get_tokenizer(name)
    if find_spec("transformers") is None:
        raise UserError(
            f"model: the tokeniser of {name} ({published}) needs the package transformers: {EXTRA}"
        )
    local = beside is not None and any((beside / file).is_file() for file in TOKENIZER_FILES)
    return open_clip.tokenizer.HFTokenizer(
        str(beside) if local else published,
        context_length=text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
        tokenizer_mode=text.get("tokenizer_mode"),
        trust_remote_code=False,  # else a tokeniser's own Python could be run after one careless answer
        **text.get("tokenizer_kwargs", {}),
    )


def _of_merges(file: Path, text: dict[str, Any]) -> Callable[..., Tensor]:
    """CLIP's tokeniser with the merges of a file, which must be as many as the model has words for."""
    with gzip.open(file) as content:
        if len(content.read(_MOST + 1)) > _MOST:
            raise UserError(f"model.config: {file} unpacks to more than {_MOST:,} bytes")
    made = open_clip.tokenizer.SimpleTokenizer(
        bpe_path=str(file),
        context_length=text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
    )
    if made.vocab_size != text.get("vocab_size", made.vocab_size):
        raise UserError(
            f"model.config: {file} makes {made.vocab_size:,} tokens, the model has {text['vocab_size']:,}"
        )
    return made
