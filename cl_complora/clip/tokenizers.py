"""The tokeniser of a model: CLIP's own byte pairs, or one of transformers', from files beside the model where
they are."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
from torch import Tensor

from ..config.tokenizer_files import folder_beside, merges_beside
from ..errors import UserError
from ..files import read_bytes

# CLIP's own are 1.4 MB packed and 3 MB unpacked.
MAX_MERGES = 2**25
EXTRA = "pip install 'cl_complora[transformers]'"


def own_tokenizer(name: str, config: Path | None) -> Path | None:
    """Where the tokeniser of a model lies that brings its own: under the name of its config, as ``export``
    leaves it, else in the config's folder.

    Args:
        name: of an architecture that open_clip knows.
        config: file of the model's config.

    Returns:
        A file of byte pairs, or a folder of files for transformers; None where the tokeniser is CLIP's, or
        comes from the hub.
    """
    if config is None:
        return None
    published = _text_config(name).get("hf_tokenizer_name")
    return folder_beside(config) if published else merges_beside(config)


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
    """CLIP's tokeniser with the merges of a file, as many as the model has words for.

    Raises:
        UserError: for a file that is none, unpacks to more than any has, or names other words.
    """
    try:
        with gzip.open(io.BytesIO(read_bytes(file, MAX_MERGES))) as content:
            if len(content.read(MAX_MERGES + 1)) > MAX_MERGES:
                raise ValueError(f"is larger than {MAX_MERGES:,} bytes")
        made = open_clip.tokenizer.SimpleTokenizer(bpe_path=str(file), **tokenizer_options(text))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file}: cannot be read as a tokenizer's merges: {reason}") from None
    if made.vocab_size != (words := text.get("vocab_size", made.vocab_size)):
        raise UserError(f"{file}: makes {made.vocab_size:,} words, and the model was made for {words:,}")
    return made
