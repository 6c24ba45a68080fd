"""The names that the library transformers gives to CLIP's weights, turned into open_clip's.

    vision_model.embeddings.class_embedding              visual.class_embedding
    vision_model.embeddings.patch_embedding.weight       visual.conv1.weight
    vision_model.embeddings.position_embedding.weight    visual.positional_embedding
    vision_model.pre_layrnorm.* (spelt so), post_layernorm.*   visual.ln_pre.*, visual.ln_post.*
    vision_model.encoder.layers.<n>.*                    visual.transformer.resblocks.<n>.*
    visual_projection.weight                             visual.proj, transposed
    text_model.embeddings.token_embedding.weight         token_embedding.weight
    text_model.embeddings.position_embedding.weight      positional_embedding
    text_model.encoder.layers.<n>.*                      transformer.resblocks.<n>.*
    text_model.final_layer_norm.*                        ln_final.*
    text_projection.weight                               text_projection, transposed
    in a layer: layer_norm1, layer_norm2, mlp.fc1, mlp.fc2     ln_1, ln_2, mlp.c_fc, mlp.c_proj
                self_attn.q_proj, k_proj, v_proj               attn.in_proj_weight, in_proj_bias, stacked
                self_attn.out_proj                             attn.out_proj
    *.position_ids                                       left out: they are counted, not learned

Names that are open_clip's already stay, so that a file converted in part is read as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_TOWERS = ("text_model.", "vision_model.")
_LAYER = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)")
_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn": "attn",
}
_STARTS = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",
    "vision_model.pre_layernorm.": "visual.ln_pre.",
    "vision_model.post_layernorm.": "visual.ln_post.",
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.": "ln_final.",
}
_TRANSPOSED = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
_SHARE = re.compile(r"(.*\.attn\.)([qkv])_proj\.(weight|bias)")


class NoCounterpart(ValueError):
    """Names that transformers gives to weights of another model than CLIP."""


def is_transformers(names: Mapping[str, Tensor]) -> bool:
    """Whether weights have transformers' names."""
    return any(name.startswith(_TOWERS) for name in names)


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under open_clip's names.

    Raises:
        NoCounterpart: naming the first weight that CLIP does not have, or what is there in part.
    """
    found: dict[str, Tensor] = {}
    shares: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name.endswith("position_ids"):
            continue
        if name in _TRANSPOSED:
            found[_TRANSPOSED[name]] = value.T
            continue
        new = _renamed(name)
        share = _SHARE.fullmatch(new)
        if share is None:
            found[new] = value
        else:
            shares.setdefault(f"{share[1]}in_proj_{share[3]}", {})[share[2]] = value
    for name, parts in shares.items():
        if set(parts) != set("qkv"):
            raise NoCounterpart(f"{name} has only {', '.join(sorted(parts))} of q, k and v")
        try:
            found[name] = torch.cat([parts[letter] for letter in "qkv"])
        except RuntimeError:
            raise NoCounterpart(f"q, k and v of {name} do not go together") from None
    return found


def _renamed(name: str) -> str:
    layer = _LAYER.fullmatch(name)
    if layer is not None:
        tower = "visual." if layer[1] == "vision" else ""
        for part, ours in _PARTS.items():
            if layer[3].startswith(f"{part}."):
                return f"{tower}transformer.resblocks.{layer[2]}.{ours}{layer[3][len(part) :]}"
        raise NoCounterpart(f"{name} is no part of CLIP")
    for start, ours in _STARTS.items():
        if name.startswith(start):
            return ours + name[len(start) :]
    if name.startswith(_TOWERS):
        raise NoCounterpart(f"{name} is no part of CLIP")
    return name
