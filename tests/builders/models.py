"""A tiny CLIP, made here, so that the tests need no download and run in seconds."""

from __future__ import annotations

import open_clip
import torch

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def tiny_clip(seed: int = 0) -> torch.nn.Module:
    """open_clip's own CLIP, small and random."""
    torch.manual_seed(seed)
    model = open_clip.model.CLIP(**TINY)
    # The init of open_clip leaves projections tiny; larger ones make wrong maths visible.
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(1.5)
    return model.eval()
