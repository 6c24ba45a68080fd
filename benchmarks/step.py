"""One training step: ours against CLIP-LoRA's loop, PEFT, full fine-tuning in Avalanche, and the forward pass
alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cl_complora.engine.constraints import Constraint

from .clips import image_size, pictures, random_clip
from .peers import PEFT_MISSING, ClipLoRALoop, Engine, FullAvalanche, PeftStep, StepSide, has_peft
from .timing import Case, Check, Goal, Side, Size, compare, relative, worst

# Gradients of 32-bit towers of 12 blocks agree to about 1e-5; Adam divides by a gradient's own size, so that
# entries near zero may turn their sign, and updates agree less well.
LOGITS, GRADIENTS, UPDATES = 1e-4, 1e-3, 2e-2

COMP, PLAIN, FORWARD = "Comp-LoRA (ours)", "LoRA (ours)", "forward only"


@dataclass(frozen=True)
class _Work:
    models: tuple[str, ...]
    classes: tuple[int, ...]
    goal_at: int
    batch: int
    repeats: int


_WORK: dict[Size, _Work] = {
    "tiny": _Work(("tiny",), (5,), 5, 4, 1),
    "quick": _Work(("ViT-B-32",), (10,), 10, 4, 2),
    "full": _Work(("ViT-B-16", "ViT-B-32"), (100, 10, 1000), 100, 32, 3),
}


def measure(size: Size, device: str = "cpu") -> Iterator[Case]:
    """All cases of this size."""
    work = _WORK[size]
    for model in work.models:
        yield from _of_model(model, work, device)


def _of_model(model: str, work: _Work, device: str) -> Iterator[Case]:
    clip = random_clip(model)
    side = image_size(clip)
    comp = Engine(COMP, copy.deepcopy(clip), Constraint(), device)
    plain = Engine(PLAIN, copy.deepcopy(clip), Constraint(select="none"), device)
    peers: list[StepSide] = [
        ClipLoRALoop(copy.deepcopy(clip), device),
        FullAvalanche(copy.deepcopy(clip), device),
    ]
    if has_peft():
        peers += [PeftStep(copy.deepcopy(clip), device, trimmed) for trimmed in (False, True)]
    images = pictures(work.batch, side, work.batch).pixels.to(device)
    images = comp.classifier.normalise(images)
    for classes in work.classes:
        labels = (torch.arange(work.batch) * 7 % classes).to(device)
        large = _left_out(peers, model, classes, device)
        checked = [_forward_only(plain, images, labels, classes)]
        if classes == work.classes[0]:  # later the peers have moved on, and only their time is of interest
            agreed = {peer.name: check(peer, plain, images, labels, classes) for peer in peers}
            agreed[PLAIN] = check_constraint(comp, plain, images, labels, classes)
        for one in (comp, plain, *peers):
            one.show(images, labels, classes)
        sides = [Side(p.name, p.step, agreed[p.name]) for p in (plain, *peers) if p.name not in large]
        case = compare(
            "step",
            f"one step, {model}, q k v of both towers, rank 2, batch {work.batch}, {classes} classes",
            Side(COMP, comp.step),
            [*sides, *checked],
            work.repeats,
            warmups=0 if classes == work.classes[0] else 1,  # the checks were a first step of every side
            device=device,
        )
        case.left_out = large | ({} if has_peft() else {"PEFT": PEFT_MISSING})
        if classes == work.goal_at:
            case.goals = list(_goals(case))
        yield case


def check(peer: StepSide, plain: Engine, images: Tensor, labels: Tensor, classes: int) -> list[Check]:
    """One step of a fresh peer against one of plain LoRA of ours that starts from the same A."""
    peer.show(images, labels, classes)
    plain.show(images, labels, classes)
    factors = peer.factors() or plain.factors()
    plain.start(factors)
    plain.step()
    peer.step()
    wanted = plain.gradients(factors)
    checks = [
        Check("logits before the step", relative(peer.logits, plain.logits), LOGITS),
        Check("gradient by B of q, k, v", worst(peer.gradients(factors), wanted), GRADIENTS),
    ]
    if (updates := peer.updates()) is not None:
        checks.append(Check("update of q, k, v after the step", worst(updates, plain.updates()), UPDATES))
    return checks


def check_constraint(
    comp: Engine, plain: Engine, images: Tensor, labels: Tensor, classes: int
) -> list[Check]:
    """Plain LoRA that starts from Comp-LoRA's composed A: the same logits, and the same gradient seen through
    U_c."""
    for one in (comp, plain):
        one.show(images, labels, classes)
    comp.start()
    plain.start(comp.factors())
    comp.step()
    plain.step()
    wanted = comp.gradients({})
    return [
        Check("logits before the step", relative(plain.logits, comp.logits), LOGITS),
        Check(
            "gradient by B within the complement",
            worst(comp.confined(plain.gradients({})), wanted),
            GRADIENTS,
        ),
    ]


def _forward_only(plain: Engine, images: Tensor, labels: Tensor, classes: int) -> Side:
    plain.show(images, labels, classes)
    space = plain.strategy.experience.spaces[0]

    @torch.no_grad()
    def forward() -> Tensor:
        plain.classifier.text.forget()
        return plain.classifier(images, space)

    before = forward()
    plain.step()
    return Side(FORWARD, forward, [Check("logits before the step", relative(before, plain.logits), LOGITS)])


def _left_out(peers: list[StepSide], model: str, classes: int, device: str) -> dict[str, str]:
    """Peers that keep more activations than there is memory (77 tokens a prompt, 12 blocks of a width of
    512)."""
    if model == "tiny" or device != "cpu":
        return {}
    needed = classes * 77 * 512 * 12 * 20 * 4
    free = _free_memory()
    if needed < 0.7 * free:
        return {}
    told = f"would keep about {needed / 1e9:.0f} GB of text activations, {free / 1e9:.0f} GB are free"
    return {peer.name: told for peer in peers if peer.name != "PEFT, with our trimmed prompts"}


def _free_memory() -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("inf")
    return 1024.0 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])


def _goals(case: Case) -> Iterator[Goal]:
    dense = ClipLoRALoop.name
    if dense in case.peers:
        yield Goal(f"{dense} takes 3 times as long", case.peers[dense]["ratio"], 3.0)
    if "PEFT" in case.peers:
        yield Goal("PEFT takes twice as long", case.peers["PEFT"]["ratio"], 2.0)
    if PLAIN in case.peers:
        yield Goal("Comp-LoRA by plain LoRA", 1 / case.peers[PLAIN]["ratio"], 1.05, at_most=True)
