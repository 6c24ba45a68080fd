"""A wider CLIP that computes what the embedded one computes, to try settings on another model.

    python -m cl_complora.world.making.widen --out wider

Every activation is there twice (Chen et al., Net2Net, arXiv 1511.05641): a matrix ``W`` (out × in) becomes

    [[A ∘ W, (1 − A) ∘ W],
     [A'∘ W, (1 − A')∘ W]]

with every entry of A and A' drawn from [0, 1), so that both copies of an input share what the one had, both
copies of an output agree, and no two columns are alike, which would keep the copies equal for ever. Heads are
copied whole; what an embedding or a norm says is said twice; the shared space of pictures and texts stays as
wide as it was.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Annotated

import open_clip
import safetensors.torch
import torch
import typer
from torch import Tensor

from ...files import parse_json, read_bytes, write_bytes, write_json
from .. import ASSETS

# Matrices that only get wider where they are read (pixels come in once), or only where they write.
_WRITES = ("class_embedding", "positional_embedding", "token_embedding.weight")
_READS = ("visual.proj", "text_projection")
_MAX_CONFIG = 1 << 20


def widened(weights: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """The weights of a ViT CLIP of open_clip, of twice the width and heads.

    Args:
        weights: its state.
        seed: of the shares.
    """
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, value in weights.items():
        if name == "logit_scale" or name.endswith("attn_mask"):
            found[name] = value.clone()
        elif name.endswith(_READS):  # in × out
            found[name] = _shared(value.mT, generator).mT.contiguous()
        elif name.endswith(_WRITES):
            found[name] = torch.cat([value, value], -1)
        elif name == "visual.conv1.weight" or value.ndim == 1:
            found[name] = _twice(value, name)
        else:
            found[name] = _twice(value, name, generator)
    return found


def _shared(value: Tensor, generator: torch.Generator) -> Tensor:
    """``out × in`` → ``out × 2 in``."""
    share = torch.rand(value.shape, generator=generator)
    return torch.cat([share * value, (1 - share) * value], 1)


def _twice(value: Tensor, name: str, generator: torch.Generator | None = None) -> Tensor:
    """Every row twice: of q, k and v in one matrix, each of the three by itself."""
    parts = value.chunk(3) if "in_proj" in name else (value,)
    rows = [
        part if generator is None else _shared(part, generator) for each in parts for part in (each, each)
    ]
    return torch.cat(rows)


def wider_config(config: dict) -> dict:
    """The open_clip configuration that such weights fit into."""
    found = copy.deepcopy(config)
    found["vision_cfg"]["width"] *= 2
    found["text_cfg"]["width"] *= 2
    found["text_cfg"]["heads"] *= 2
    return found


def main(
    out: Annotated[Path, typer.Option(help="Folder to write the model into.")],
    seed: Annotated[int, typer.Option(help="Of the shares.")] = 0,
) -> None:
    """Write config, weights and merges, and say how far its features are from the embedded model's."""
    out.mkdir(parents=True, exist_ok=True)
    of_narrow = parse_json(read_bytes(ASSETS / "embedded_clip.json", _MAX_CONFIG))
    config = wider_config(of_narrow)
    narrow, model = (open_clip.model.CLIP(**one) for one in (of_narrow, config))
    narrow.load_state_dict(safetensors.torch.load_file(ASSETS / "model.safetensors"))
    model.load_state_dict(widened(narrow.state_dict(), seed))
    preprocess = parse_json(read_bytes(ASSETS / "preprocess.json", _MAX_CONFIG))
    told = {"model_cfg": config, "preprocess_cfg": {key: preprocess[key] for key in ("mean", "std")}}
    write_json(out / "wider_clip.json", told)
    write_bytes(out / "wider_clip.safetensors", safetensors.torch.save(model.state_dict()))
    shutil.copyfile(ASSETS / "bpe.txt.gz", out / "bpe.txt.gz")
    typer.echo(
        f"{sum(p.numel() for p in model.parameters()):,} weights;"
        f" features differ by {_far(narrow, model):.1e}"
    )


@torch.no_grad()
def _far(one: torch.nn.Module, other: torch.nn.Module) -> float:
    """Largest difference of normalised features of noise and of random tokens."""
    images = torch.randn(4, 3, *one.visual.image_size)
    tokens = torch.randint(1, 200, (4, one.context_length))
    return max(
        float((one.encode_image(images, True) - other.encode_image(images, True)).abs().max()),
        float((one.encode_text(tokens, True) - other.encode_text(tokens, True)).abs().max()),
    )


if __name__ == "__main__":
    typer.run(main)
