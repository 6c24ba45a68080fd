"""What a ViT says of places in an image: its dense map, and the pooling of it over boxes and masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F


def dense_fault(tower: nn.Module) -> str | None:
    """Why an image tower has no dense map; None where it has one."""
    if not isinstance(tower, VisionTransformer) or type(tower).forward is not VisionTransformer.forward:
        return (
            f"its image tower is {type(tower).__name__}, and only open_clip's own ViT has patch tokens here"
        )
    if tower.attn_pool is not None or tower.pool_type != "tok" or tower.final_ln_after_pool:
        return "its image tower does not read a class token, so no patch can stand in for it"
    last = tower.transformer.resblocks[-1]
    if type(last).forward is not ResidualAttentionBlock.forward:
        return f"the last block of its image tower is {type(last).__name__}, whose values are not known here"
    return None


def dense_map(tower: VisionTransformer, images: Tensor) -> Tensor:
    """``N × D × h × w`` unit features of the patches of normalised images.

    All blocks but the last compute as usual; in the last every token is given its own value and nothing of
    the others (MaskCLIP): x ← x + W_o (W_v LN₁x + b_v) + b_o, x ← x + MLP(LN₂x). Then the class token goes,
    and LN_post, the projection and ℓ² follow.

    Args:
        tower: for which :func:`dense_fault` knows nothing.
        images: ``N × 3 × H × W``, floats.
    """
    x = tower._embeds(images)
    transformer = tower.transformer
    x = x if transformer.batch_first else x.transpose(0, 1)
    for block in transformer.resblocks[:-1]:
        x = block(x)
    tokens = x.shape[1] if transformer.batch_first else x.shape[0]
    # A token that sees itself alone has the weight 1 on its own value.
    alone = x.new_full((tokens, tokens), -torch.inf).fill_diagonal_(0)
    x = transformer.resblocks[-1](x, attn_mask=alone)
    x = x if transformer.batch_first else x.transpose(0, 1)
    x = tower.ln_post(x[:, 1:])
    x = x if tower.proj is None else x @ tower.proj
    rows, columns = tower.grid_size
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.normalize(x, dim=-1).mT.unflatten(2, (rows, columns))


def box_weights(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """``K × h·w``: what RoIAlign to 1 × 1 takes of every patch (aligned, two-way bilinear), rows of sum 1.

    RoIAlign is linear in the map, so that it is asked once what it does to every patch; the pooling then is
    one product, with a gradient that repeats to the bit.

    Args:
        boxes: ``K × 4``, x₀ y₀ x₁ y₁ in 0..1 of the image.
        size: (h, w) of the map.
    """
    from torchvision.ops import roi_align

    height, width = size
    patches = height * width
    unit = torch.eye(patches, dtype=boxes.dtype, device=boxes.device).view(1, patches, height, width)
    scaled = boxes * boxes.new_tensor([width, height, width, height])
    return roi_align(unit, [scaled], (1, 1), aligned=True).flatten(1)


def pooled(dense: Tensor, weights: Tensor) -> Tensor:
    """``N × K × D``: means of a dense map over K regions, not normalised again.

    Args:
        dense: ``N × D × h × w``.
        weights: ``K × h·w``, or ``N × K × h·w`` where images have regions of their own.
    """
    return weights.to(dense) @ dense.flatten(2).mT


def grid_boxes(rows: int, columns: int) -> Tensor:
    """``rows · columns × 4`` boxes that part an image, row by row."""
    tops = [row / rows for row in range(rows + 1)]
    lefts = [column / columns for column in range(columns + 1)]
    boxes = [[lefts[c], tops[r], lefts[c + 1], tops[r + 1]] for r in range(rows) for c in range(columns)]
    return torch.tensor(boxes)


def crops(images: Tensor, boxes: Sequence[Sequence[float]]) -> Tensor:
    """``K · N × 3 × H × W``: every box of every image, box by box, enlarged to the size of the image.

    Args:
        images: ``N × 3 × H × W`` floats.
        boxes: as for :func:`box_weights`; a box keeps one pixel at least.
    """
    height, width = images.shape[-2:]
    parts = []
    for left, top, right, bottom in boxes:
        x, y = round(float(left) * width), round(float(top) * height)
        part = images[
            ..., y : max(y + 1, round(float(bottom) * height)), x : max(x + 1, round(float(right) * width))
        ]
        parts.append(F.interpolate(part, (height, width), mode="bicubic", antialias=True))
    return torch.cat(parts)
