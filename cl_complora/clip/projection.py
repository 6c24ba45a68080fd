"""The linear map that an image tower ends in."""

from __future__ import annotations

from torch import nn

# Where towers keep it, below ``visual``.
_LINEAR = ("attnpool.c_proj", "head.proj", "head.mlp.fc2")


def image_projection(clip: nn.Module) -> dict[str, bool]:
    """Names of its parameters, and whether a matrix's rows are outputs (``nn.Linear``) or inputs.

    Raises:
        ValueError: if the tower ends in no linear map, or keeps it where nobody looks.
    """
    visual = clip.visual
    if isinstance(getattr(visual, "proj", None), nn.Parameter):
        return {"visual.proj": False}
    modules = dict(visual.named_modules())
    for path in _LINEAR:
        last = modules.get(path)
        if isinstance(last, nn.Linear):
            names = {f"visual.{path}.weight": True}
            return names if last.bias is None else names | {f"visual.{path}.bias": True}
    raise ValueError("this model's image tower ends in no linear map that a map of its features could enter")
