"""Pretrain the embedded CLIP on pictures and captions of the world, seeded and resumable, on CPU or GPU.

    python -m cl_complora.world.making.pretrain --out pretraining

Loss: CLIP's symmetric contrastive loss, plus two auxiliary ones that fade out. One classifies each picture's
main concept among prompts (label-supervised contrast through the text tower), the other predicts the
caption's words from the image (bag of words). With batches of 64 the plain contrastive loss alone learns
several times more slowly.

From a quarter of the way on a fifth of the pairs is loose (``loose.py``, ``loose_captions.py``): the stream's
families in other guises, under captions that often miss.

The schedule counts images, so a resumed run follows the same curve (with ``--minutes`` it follows the clock
instead, and only the data are reproducible).
"""

from __future__ import annotations

import io
import json
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import open_clip
import safetensors.torch
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from ...files import write_bytes, write_json, write_text
from ...muon import Muon
from .. import ASSETS
from ..captions import FRAMES
from ..concepts import CONCEPTS
from .batches import BATCH, Plan, batches
from .loose_captions import Reading
from .zero_shot import evaluate

CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 48, "layers": 5, "width": 128, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 0, "width": 96, "heads": 3, "layers": 3},
}
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "size": 48}


def tokenizer() -> open_clip.tokenizer.SimpleTokenizer:
    """CLIP's tokenizer with the world's merges."""
    return open_clip.tokenizer.SimpleTokenizer(
        bpe_path=str(ASSETS / "bpe.txt.gz"), context_length=CONFIG["text_cfg"]["context_length"]
    )


def model_config() -> dict:
    """The open_clip config, with the vocabulary's size filled in."""
    config = json.loads(json.dumps(CONFIG))
    config["text_cfg"]["vocab_size"] = tokenizer().vocab_size
    return config


@dataclass
class State:
    """Everything that changes while training."""

    model: nn.Module
    average: dict[str, Tensor]
    words: nn.Linear
    optimisers: list[torch.optim.Optimizer]
    images: int = 0
    seconds: float = 0.0


def _normalise(pixels: Tensor) -> Tensor:
    return (pixels.float() / 255 - PREPROCESS["mean"][0]) / PREPROCESS["std"][0]


def new_state(seed: int, lr: float, device: str, muon: bool = True) -> State:
    """Model, its moving average, the auxiliary head and the optimisers."""
    torch.manual_seed(seed)
    config = model_config()
    model = open_clip.model.CLIP(**config).to(device)
    words = nn.Linear(config["embed_dim"], config["text_cfg"]["vocab_size"]).to(device)
    hidden = [p for name, p in model.named_parameters() if "resblocks" in name and p.ndim == 2]
    taken = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in taken]
    decayed, plain = [p for p in rest if p.ndim >= 2], [p for p in rest if p.ndim < 2]
    groups = [
        {"params": [*decayed, *words.parameters()], "weight_decay": 0.1},
        {"params": plain, "weight_decay": 0.0},
    ]
    if not muon:
        groups[0]["params"] += hidden
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))]
    if muon:
        optimisers.append(Muon(hidden, lr, weight_decay=0.1))
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return State(model, average, words, optimisers)


def loss_of(
    state: State, pixels: Tensor, captions: list[str], labels: Tensor, tokenize, rng, extra: float
) -> Tensor:
    """Contrastive loss plus ``extra`` times the auxiliary ones."""
    model, device = state.model, next(state.model.parameters()).device
    tokens = tokenize(captions)
    present = sorted(
        {int(c) for c in labels.tolist() if c >= 0}
        | set(rng.choice(len(CONCEPTS), 48, replace=False).tolist())
    )
    frame = FRAMES[rng.integers(len(FRAMES))]
    prompts = tokenize([frame.format(f"a {CONCEPTS[c].name}") for c in present])
    raw = model.encode_image(_normalise(pixels.to(device)))
    image = F.normalize(raw, dim=-1)
    text, names = (F.normalize(_encode_text(model, t.to(device)), dim=-1) for t in (tokens, prompts))
    scale = model.logit_scale.exp()
    logits = scale * image @ text.mT
    # The same caption twice in a batch is no negative.
    same = torch.tensor([[a == b for b in captions] for a in captions]) & ~torch.eye(
        len(captions), dtype=torch.bool
    )
    logits = logits.masked_fill(same.to(device), -1e4)
    target = torch.arange(len(captions), device=device)
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)) / 2
    known = labels >= 0
    position = {c: i for i, c in enumerate(present)}
    wanted = torch.tensor([position[c] for c in labels[known].tolist()], device=device)
    loss = loss + (0.3 + extra) * F.cross_entropy(scale * image[known.to(device)] @ names.mT, wanted)
    if extra > 0:
        bag = torch.zeros(len(captions), state.words.out_features).scatter_(1, tokens, 1.0)
        bag[:, 0] = 0  # padding
        bag = (bag / bag.sum(1, keepdim=True)).to(device)
        loss = loss + extra * F.cross_entropy(state.words(raw), bag)
    return loss


def _encode_text(model: nn.Module, tokens: Tensor) -> Tensor:
    n = int(tokens.argmax(1).max()) + 1  # nothing after the last end-of-text token has any influence
    x = model.token_embedding(tokens[:, :n]) + model.positional_embedding[:n]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:n, :n]))
    return x[torch.arange(len(x)), tokens.argmax(-1)] @ model.text_projection


def train(
    state: State,
    plan: Plan,
    lr: float,
    folder: Path,
    every: float,
    clock: float | None = None,
    stop: int | None = None,
) -> None:
    """Train to ``plan.images`` pictures, logging and saving every ``every`` seconds.

    Args:
        clock: plan the schedule for this many seconds instead of for the images; how far the run is, is then
            the larger share of the two (for a machine whose speed is not known beforehand).
        stop: break off after this many images, as an interruption would.
    """
    tokenize = tokenizer()
    began, since = time.perf_counter() - state.seconds, time.perf_counter()
    losses: list[Tensor] = []
    for pixels, captions, labels in batches(plan, state.images):
        state.seconds = time.perf_counter() - began
        done = state.images / plan.images
        if clock is not None:
            done = max(done, state.seconds / clock)
        if done >= 1 or (stop is not None and state.images >= stop):
            break
        # Warm-up, a plateau, and a linear decay to zero over the last 60 %.
        factor = min(1.0, state.images / (300 * BATCH)) * min(1.0, (1 - done) / 0.6)
        for optimiser in state.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = lr * factor
        rng = np.random.default_rng([plan.seed, 11, state.images])
        state.model.train()
        loss = loss_of(state, pixels, captions, labels, tokenize, rng, extra=max(0.0, 1 - done / 0.6))
        for optimiser in state.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(state.model.parameters(), 2.0)
        for optimiser in state.optimisers:
            optimiser.step()
        state.images += BATCH
        with torch.no_grad():
            state.model.logit_scale.clamp_(0, math.log(100))
            keep = min(0.999, 1 - 1 / (1 + state.images / BATCH / 10))
            current = state.model.state_dict()
            moving = [name for name, value in current.items() if value.is_floating_point()]
            torch._foreach_lerp_(
                [state.average[name] for name in moving], [current[name] for name in moving], 1 - keep
            )
        losses.append(loss.detach())
        if time.perf_counter() - since > every:
            report(state, losses, folder, per_class=4)
            since, losses = time.perf_counter(), []
    report(state, losses, folder, per_class=20)


def accuracies(state: State, per_class: int) -> dict[str, float]:
    """Zero-shot accuracies of the averaged weights."""
    current = {name: value.detach().clone() for name, value in state.model.state_dict().items()}
    state.model.load_state_dict(state.average)
    state.model.eval()
    row = evaluate(state.model, tokenizer(), _normalise, per_class)
    state.model.load_state_dict(current)
    return row


def report(state: State, losses: list[Tensor], folder: Path, per_class: int) -> None:
    """A line of the curve, a checkpoint, and the weights."""
    row = {
        "images": state.images,
        "seconds": round(state.seconds, 1),
        "loss": round(float(torch.stack(losses).mean()), 4) if losses else None,
    }
    row |= {"scale": round(state.model.logit_scale.exp().item(), 2)} | {
        k: round(v, 4) for k, v in accuracies(state, per_class).items()
    }
    print(json.dumps(row), flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    curve = folder / "curve.jsonl"
    write_text(curve, (curve.read_text(encoding="utf-8") if curve.exists() else "") + json.dumps(row) + "\n")
    content = io.BytesIO()
    torch.save(
        {
            "model": state.model.state_dict(),
            "average": state.average,
            "words": state.words.state_dict(),
            "optimisers": [o.state_dict() for o in state.optimisers],
            "images": state.images,
            "seconds": state.seconds,
        },
        content,
    )
    write_bytes(folder / "checkpoint.pt", content.getvalue())
    export(state, folder)


def export(state: State, folder: Path) -> None:
    """Averaged weights and config, as the package ships them."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.average.items()}
    write_bytes(folder / "model.safetensors", safetensors.torch.save(tensors, metadata={"format": "pt"}))
    write_json(folder / "embedded_clip.json", model_config())
    write_json(folder / "preprocess.json", PREPROCESS)


def restore(state: State, folder: Path) -> None:
    """Go on from ``folder``'s checkpoint."""
    saved = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    state.model.load_state_dict(saved["model"])
    state.average = {name: value.to(state.average[name].device) for name, value in saved["average"].items()}
    state.words.load_state_dict(saved["words"])
    for optimiser, content in zip(state.optimisers, saved["optimisers"], strict=True):
        optimiser.load_state_dict(content)
    state.images, state.seconds = saved["images"], saved["seconds"]


def begin_with(state: State, weights: Path, at: int) -> None:
    """Take finished weights at a place of the schedule, with fresh optimisers.

    Args:
        weights: what ``export`` wrote.
        at: images that they have seen; rounded down to a whole batch.
    """
    state.model.load_state_dict(safetensors.torch.load_file(weights))
    state.average = {name: value.detach().clone() for name, value in state.model.state_dict().items()}
    state.images = at // BATCH * BATCH


def main(
    images: Annotated[int, typer.Option(help="Pictures to train on.")] = 640_000,
    minutes: Annotated[
        float | None, typer.Option(help="Plan the schedule for this time; ends there at the latest.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of checkpoint, curve and weights.")] = Path("pretraining"),
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Of weights, pictures and batches.")] = 0,
    loose: Annotated[float, typer.Option(help="Share of loose pairs, from a quarter of the way on.")] = 0.2,
    right: Annotated[float, typer.Option(help="Loose captions with the right word.")] = 0.45,
    friend: Annotated[float, typer.Option(help="… with the false friend's word.")] = 0.30,
    only: Annotated[float, typer.Option(help="… with the family's name alone.")] = 0.15,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads of the training.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes that draw pictures.")] = 1,
    every: Annotated[float, typer.Option(help="Seconds between checkpoints.")] = 90,
    muon: Annotated[bool, typer.Option(help="Muon for the hidden matrices, else AdamW for all.")] = True,
    start: Annotated[
        Path | None, typer.Option(help="Weights to begin with instead of random ones, as --out had them.")
    ] = None,
    at: Annotated[int, typer.Option(help="Pictures that --start has seen: where on the schedule it is.")] = 0,
    install: Annotated[bool, typer.Option(help="Copy the result into the package when done.")] = False,
) -> None:
    """Pretrain, or go on with the checkpoint in --out."""
    torch.set_num_threads(threads)
    state = new_state(seed, lr, device, muon)
    if (out / "checkpoint.pt").exists():
        restore(state, out)
        print(f"going on after {state.images} images", flush=True)
    elif start is not None:
        begin_with(state, start, at)
    plan = Plan(seed, images, loose, Reading(right, friend, only), workers)
    train(state, plan, lr, out, every, None if minutes is None else 60 * minutes)
    if install:
        for name in ("model.safetensors", "embedded_clip.json", "preprocess.json", "curve.jsonl"):
            shutil.copyfile(out / name, ASSETS / name)


if __name__ == "__main__":
    typer.run(main)
