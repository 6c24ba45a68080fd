"""Small CLIPs of every kind of tower, what they compute, and random factors on them."""

from __future__ import annotations

import copy
import functools

import open_clip
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders.models import TINY
from builders.models import tiny_clip as new_tiny_clip
from builders.places import SHARED
from cl_complora.data.labels import LabelSpace
from cl_complora.delta import TaskDelta
from cl_complora.lowrank import LowRankBlock

REAL = SHARED / "realdata/model/mobilevit_xxs_clip.json"
SPACE = LabelSpace.from_templates(
    ["cat", "sea lion", "fire truck"], ["a photo of a {}.", "a drawing of the {}."]
)


VISION, TEXT = TINY["vision_cfg"], TINY["text_cfg"]


def remembered(make):
    """Drawing the weights takes longer than most tests; a copy does not."""
    kept: dict[str, nn.Module] = {}

    @functools.wraps(make)
    def copied(*args, **kwargs) -> nn.Module:
        key = repr((args, kwargs))
        if key not in kept:
            kept[key] = make(*args, **kwargs)
        return copy.deepcopy(kept[key])

    return copied


@remembered
def built(kind: str, *, vision: dict | None = None, text: dict | None = None, **extra) -> nn.Module:
    """A small random model of open_clip, its matrices large enough for wrong maths to show."""
    torch.manual_seed(0)
    vision, text = VISION | (vision or {}), TEXT | (text or {})
    model = getattr(open_clip.model, kind)(embed_dim=32, vision_cfg=vision, text_cfg=text, **extra)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(1.5)
    return model.eval()


tiny_clip = remembered(new_tiny_clip)


@remembered
def timm_tower(name: str = "vit_tiny_patch16_224") -> nn.Module:
    config = {"timm_model_name": name, "timm_pool": "", "timm_proj": "linear", "image_size": 224}
    torch.manual_seed(0)
    model = open_clip.model.CLIP(embed_dim=32, vision_cfg=config, text_cfg=TEXT)
    model.visual.set_input_size(32)
    return model.eval()


@remembered
def coca() -> nn.Module:
    torch.manual_seed(0)
    pool = {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2, "output_tokens": True}
    decoder = {"context_length": 15, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    return open_clip.coca_model.CoCa(
        embed_dim=32,
        vision_cfg=VISION | pool,
        text_cfg=TEXT | {"context_length": 15, "embed_cls": True, "output_tokens": True},
        multimodal_cfg=decoder,
    ).eval()


@remembered
def mobilevit() -> nn.Module:
    if not REAL.exists():
        pytest.skip(f"{REAL} is not in this checkout")
    open_clip.add_model_config(REAL)
    return open_clip.create_model(
        "mobilevit_xxs_clip", pretrained=str(REAL.with_suffix(".safetensors"))
    ).eval()


MODELS = {
    "CLIP": tiny_clip,
    "CustomTextCLIP": lambda: built("CustomTextCLIP"),
    "custom blocks": lambda: built("CLIP", vision={"block_type": "custom"}, text={"block_type": "custom"}),
    "ResNet": lambda: built(
        "CLIP", vision={"layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "image_size": 64}
    ),
    "CoCa": coca,
    "timm ViT": timm_tower,
    "mobilevit": mobilevit,
}


def batch(model: nn.Module) -> torch.Tensor:
    size = model.visual.image_size
    side = min(size if isinstance(size, int) else size[0], 64)  # mobilevit takes any size
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


tokenizer_of = functools.cache(open_clip.SimpleTokenizer)


def tokens(model: nn.Module) -> torch.Tensor:
    context = model.text.context_length if hasattr(model, "text") else model.context_length
    return tokenizer_of(context_length=context)(["a photo of a cat", "two", "a very long description of it"])


def outputs(model: nn.Module) -> dict[str, torch.Tensor]:
    image, text = model.encode_image(batch(model)), model.encode_text(tokens(model))
    logits = model.logit_scale.exp() * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).mT
    return {"image": image, "text": text, "logits": logits}


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        worst, size = (float(x.detach().abs().max()) for x in (found[name] - value, value))
        # Features of mobilevit go up to 110; logits must agree as they are.
        assert worst <= 1e-5 * (1.0 if name == "logits" else max(1.0, size)), (name, worst)


def attach(slots, rank: int = 2, dropout: float = 0.0) -> dict[str, LowRankBlock]:
    """Random non-zero A and B on every slot, with the rest of the model frozen by the caller."""
    generator = torch.Generator().manual_seed(3)
    blocks = {}
    for slot in slots:
        out, width = slot.weight.shape
        block = LowRankBlock(out, width, rank, scaling=0.7, dropout=dropout, generator=generator)
        with torch.no_grad():
            block.B.copy_(torch.randn(block.B.shape, generator=generator) * 0.1)
        slot.adapters.attach(slot.matrix, slot.rows, block)
        blocks[slot.name] = block
    return blocks


def merge(model: nn.Module, slots) -> None:
    delta = TaskDelta()
    for slot in slots:
        b, a = slot.adapters.detach(slot.matrix).factors()
        delta.factors[slot.key] = (b.detach(), a.detach())
    delta.add_to(dict(model.named_parameters()))
