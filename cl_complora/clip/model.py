"""Load any open_clip model, by name and tag, by name and file, by its own config, or the embedded one."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from torch import Tensor, nn

from ..config.scenario import Model
from ..data.pixels import Pixels
from ..data.world import ASSETS
from ..errors import UserError

EMBEDDED = "embedded"


@dataclass
class LoadedClip:
    """A CLIP with what is needed around it.

    Attributes:
        model: the open_clip model, fp32, in eval mode.
        tokenizer: texts → ``n × context`` tokens.
        name: the resolved architecture (``ViT-B-16-quickgelu`` where the weights need it).
        pretrained: tag, file name, or ``embedded``; empty for random weights.
        sha256: fingerprint of all weights.
        pixels: resize and crop of its preprocessing.
        mean, std: normalisation.
        notes: what the user should know about how the name was resolved.
    """

    model: nn.Module
    tokenizer: Callable[[list[str]], Tensor]
    name: str
    pretrained: str
    sha256: str
    pixels: Pixels
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()


def load_clip(spec: Model, folder: Path = Path(".")) -> LoadedClip:
    """Load the model that a scenario names.

    Args:
        spec: name, pretrained tag or file, config file.
        folder: where relative file names start from.

    Raises:
        UserError: for an unknown name or tag, a missing or unfitting file, a hub that cannot be reached.
    """
    if spec.name == EMBEDDED and spec.config is None:
        if spec.pretrained is not None:
            raise UserError("model.pretrained: the embedded model brings its own weights; leave pretrained out")
        return _load_embedded()
    notes: list[str] = []
    name = spec.name
    if spec.config is not None:
        name = _register_config(folder / spec.config)
    elif name not in open_clip.list_models():
        raise UserError(f"model.name: {name!r} is not an open_clip model{_close(name, open_clip.list_models())}")
    pretrained = spec.pretrained
    file = _weight_file(pretrained, folder) if pretrained else None
    if pretrained and file is None:
        name = _resolve_tag(name, pretrained, notes)
    try:
        with _quiet():
            model = open_clip.create_model(name, pretrained=str(file) if file else pretrained, weights_only=True)
            tokenizer = open_clip.get_tokenizer(name)
    except UserError:
        raise
    except Exception as error:  # open_clip, the hub client and torch raise many kinds; all mean "cannot be loaded"
        raise UserError(_load_failure(name, pretrained, file, error)) from None
    if not pretrained:
        notes.append(f"{name} has random weights: give model.pretrained a tag or a file")
    preprocess = getattr(model.visual, "preprocess_cfg", {})
    size = model.visual.image_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    mean = tuple(preprocess.get("mean") or getattr(model.visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN)
    std = tuple(preprocess.get("std") or getattr(model.visual, "image_std", None) or open_clip.OPENAI_DATASET_STD)
    pixels = Pixels(size, preprocess.get("resize_mode", "shortest"), preprocess.get("interpolation", "bicubic"))
    return LoadedClip(
        model.eval(), tokenizer, name, file.name if file else pretrained or "", fingerprint(model), pixels, mean, std, tuple(notes)
    )


def _load_embedded() -> LoadedClip:
    try:
        name = _register_config(ASSETS / "embedded_clip.json")
        preprocess = json.loads((ASSETS / "preprocess.json").read_text(encoding="utf-8"))
        with _quiet():
            model = open_clip.create_model(name, pretrained=str(ASSETS / "model.safetensors"))
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"the embedded model in {ASSETS} is damaged ({error}); install the package again") from None
    size = preprocess["size"]
    return LoadedClip(
        model.eval(),
        embedded_tokenizer(),
        EMBEDDED,
        EMBEDDED,
        fingerprint(model),
        Pixels((size, size)),
        tuple(preprocess["mean"]),
        tuple(preprocess["std"]),
    )


def embedded_tokenizer() -> Callable[[list[str]], Tensor]:
    """CLIP's own byte-pair tokenizer with the embedded model's subset of its merges."""
    config = json.loads((ASSETS / "embedded_clip.json").read_text(encoding="utf-8"))
    context = config["text_cfg"]["context_length"]
    return open_clip.tokenizer.SimpleTokenizer(bpe_path=str(ASSETS / "bpe.txt.gz"), context_length=context)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the names, shapes and values of all weights, in name order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _register_config(path: Path) -> str:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as an open_clip model config (JSON): {error}") from None
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in config]
    if missing:
        raise UserError(f"{path}: not an open_clip model config: {', '.join(missing)} missing")
    open_clip.add_model_config(path)
    return path.stem


def _weight_file(pretrained: str, folder: Path) -> Path | None:
    looks_like_path = "/" in pretrained or "\\" in pretrained or Path(pretrained).suffix in (".safetensors", ".pt", ".pth", ".bin")
    path = folder / Path(pretrained).expanduser()
    if path.is_file():
        return path
    if looks_like_path:
        raise UserError(f"model.pretrained: there is no weight file {path}")
    return None


def _resolve_tag(name: str, tag: str, notes: list[str]) -> str:
    tags = open_clip.list_pretrained_tags_by_model(name)
    quick = f"{name}-quickgelu"
    # Weights trained with QuickGELU under a GELU architecture load without a word and give wrong features.
    if quick in open_clip.list_models() and (tag == "openai" or tag not in tags):
        if tag in open_clip.list_pretrained_tags_by_model(quick):
            notes.append(f"{name} with {tag} weights resolves to {quick}")
            return quick
    if tag not in tags:
        known = ", ".join(tags) or "none"
        raise UserError(f"model.pretrained: {name} has no weights {tag!r} (neither a file nor a tag); tags: {known}")
    return name


def _load_failure(name: str, pretrained: str | None, file: Path | None, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    if file is not None:
        return f"model.pretrained: {file} does not load into {name}: {reason}"
    if pretrained:
        return (
            f"model: the weights {name}/{pretrained} cannot be fetched ({type(error).__name__}: {reason}); download them "
            "elsewhere and give the file as model.pretrained or --pretrained"
        )
    return f"model: {name} cannot be built: {reason}"


def _close(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # open_clip logs a line per step of loading on the root logger.
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
