"""Models by the address of what was published: ``hf-hub:owner/name`` and ``local-dir:folder``, as open_clip
writes them."""

from __future__ import annotations

import re
from pathlib import Path

HUB, LOCAL = "hf-hub:", "local-dir:"
CONFIG = "open_clip_config.json"
# In the order of preference: names that open_clip saves under, then what other people call them.
WEIGHTS = ("open_clip_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model")


def is_address(name: str) -> bool:
    """Whether a model's name is the address of a repository."""
    return name.startswith((HUB, LOCAL))


def local_folder(name: str, folder: Path) -> Path:
    """Folder of a ``local-dir:`` name; relative ones start from ``folder``."""
    return folder / Path(name.removeprefix(LOCAL)).expanduser()


def architecture_name(name: str) -> str:
    """What the architecture is called once it is read: ``timm--ViT-B-16-SigLIP``."""
    text = name.removeprefix(HUB).removeprefix(LOCAL).strip("/")
    parts = [part for part in re.split(r"[/\\]", text) if part not in ("", ".", "..", "~")]
    kept = parts[-1:] if name.startswith(LOCAL) else parts
    return re.sub(r"[^\w.+-]", "-", "--".join(kept)).lstrip(".") or "model"


def address_fault(name: str, folder: Path) -> str | None:
    """What is wrong with an address as far as it tells itself; nothing is fetched.

    Args:
        name: begins with one of the two schemes.
        folder: where relative folders start from.
    """
    if name.startswith(HUB):
        right = re.fullmatch(r"[\w.-]+/[\w.-]+", name.removeprefix(HUB))
        return None if right else f"{name!r} must be {HUB}owner/name, as in hf-hub:timm/ViT-B-16-SigLIP"
    place = local_folder(name, folder)
    if not name.removeprefix(LOCAL) or not place.is_dir():
        return f"there is no folder {place}"
    if not (place / CONFIG).is_file():
        return f"{place} holds no {CONFIG}, which open_clip publishes and `cl-complora export` writes"
    if weights_in(place) is None:
        return f"{place} holds no weights ({', '.join(WEIGHTS)})"
    return None


def weights_in(folder: Path) -> Path | None:
    """The weights in a repository's folder: one of the usual names, else its only safetensors file."""
    named = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    others = sorted(folder.glob("*.safetensors"))
    return named or (others[0] if len(others) == 1 else None)
