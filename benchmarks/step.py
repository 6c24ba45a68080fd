"""One training step: ours against CLIP-LoRA's loop, PEFT, full fine-tuning in Avalanche, and the forward pass
alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cl_complora.engine.constraints import Constraint

from .clips import image_size, pictures, random_clip
from .launches import launches
from .peers import PEFT_MISSING, ClipLoRALoop, Engine, FullAvalanche, PeftStep, StepSide, has_peft
from .timing import Case, Check, Goal, Side, Size, compare, relative, seconds_of, worst


@dataclass(frozen=True)
class Tolerances:
    """What may differ between two sides, relative to its length."""

    logits: float
    gradients: float
    updates: float | None


# Gradients of 32-bit towers of 12 blocks agree to about 1e-5; Adam divides by a gradient's own size, so that
# entries near zero may turn their sign, and updates agree less well. A GPU adds in other orders and cuts
# patches in TF32; in 16 bits two roundings of one product differ by a hundredth, and Adam's signs are noise.
FLOAT = Tolerances(1e-4, 1e-3, 2e-2)
ON_GPU = Tolerances(1e-3, 1e-2, 1e-1)
HALF = Tolerances(1e-1, 5e-1, None)

COMP, PLAIN, FORWARD = "Comp-LoRA (ours)", "LoRA (ours)", "forward only"
COMPILED = "Comp-LoRA, compiled"


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
# Steps of milliseconds.
_ON_GPU_REPEATS = 10


def measure(size: Size, device: str = "cpu") -> Iterator[Case]:
    """All cases of this size; on a GPU the first model alone, and every case also in bf16."""
    work = _WORK[size]
    for model in work.models if device == "cpu" else work.models[:1]:
        yield from _of_model(model, work, device, torch.float32)
        if device != "cpu":
            yield from _of_model(model, work, device, torch.bfloat16)


def tolerances(device: str, precision: torch.dtype) -> Tolerances:
    """Of all checks there."""
    if precision != torch.float32:
        return HALF
    return FLOAT if device == "cpu" else ON_GPU


def _of_model(model: str, work: _Work, device: str, precision: torch.dtype) -> Iterator[Case]:
    clip = random_clip(model)
    side = image_size(clip)
    comp = Engine(COMP, copy.deepcopy(clip), Constraint(), device, precision=precision)
    plain = Engine(PLAIN, copy.deepcopy(clip), Constraint(select="none"), device, precision=precision)
    peers: list[StepSide] = [
        ClipLoRALoop(copy.deepcopy(clip), device),
        FullAvalanche(copy.deepcopy(clip), device),
    ]
    if has_peft():
        peers += [PeftStep(copy.deepcopy(clip), device, trimmed) for trimmed in (False, True)]
    for peer in peers:
        peer.step = _computing_in(precision, device, peer.step)
    allowed = tolerances(device, precision)
    images = pictures(work.batch, side, work.batch).pixels.to(device)
    images = comp.classifier.normalise(images)
    for classes in work.classes:
        labels = (torch.arange(work.batch) * 7 % classes).to(device)
        large = _left_out(peers, model, classes, device)
        checked = [_forward_only(plain, images, labels, classes, allowed)]
        if classes == work.classes[0]:  # later the peers have moved on, and only their time is of interest
            agreed = {peer.name: check(peer, plain, images, labels, classes, allowed) for peer in peers}
            agreed[PLAIN] = check_constraint(comp, plain, images, labels, classes, allowed)
        for one in (comp, plain, *peers):
            one.show(images, labels, classes)
        sides = [Side(p.name, p.step, agreed[p.name]) for p in (plain, *peers) if p.name not in large]
        case = compare(
            "step",
            f"one step, {model}, q k v of both towers, rank 2, batch {work.batch}, {classes} classes,"
            f" {told(precision)}",
            Side(COMP, comp.step),
            [*sides, *checked],
            work.repeats if device == "cpu" else _ON_GPU_REPEATS,
            warmups=int(device != "cpu" or classes != work.classes[0]),  # the checks were a first step
            device=device,
        )
        if device != "cpu":
            case.ours |= launches(comp.step, device)
            for one in (plain, *peers):
                if one.name in case.peers:
                    case.peers[one.name] |= launches(one.step, device)
        case.left_out = large | ({} if has_peft() else {"PEFT": PEFT_MISSING})
        if classes == work.goal_at:
            case.goals = list(_goals(case))
        yield case
    if device != "cpu":
        compiled = Engine(
            COMPILED, copy.deepcopy(clip), Constraint(), device, precision=precision, compiled=True
        )
        yield _compiled(comp, compiled, images, work, allowed, device)


def _compiled(
    comp: Engine, compiled: Engine, images: Tensor, work: _Work, allowed: Tolerances, device: str
) -> Case:
    """Ours against itself with towers that torch.compile made, at the number of classes of the goals."""
    classes = work.goal_at
    labels = (torch.arange(work.batch) * 7 % classes).to(device)
    for one in (comp, compiled):
        one.show(images, labels, classes)
    comp.start()
    compiled.start(_factors_of(comp))
    first = seconds_of(compiled.step, device)[0]
    comp.step()
    checks = [
        Check("logits before the step", relative(compiled.logits, comp.logits), allowed.logits),
        Check("gradient by B", worst(compiled.gradients({}), comp.gradients({})), allowed.gradients),
    ]
    case = compare(
        "step",
        f"one step, compiled or not, batch {work.batch}, {classes} classes,"
        f" {told(comp.classifier.precision)}",
        Side(COMP, comp.step),
        [Side(COMPILED, compiled.step, checks)],
        _ON_GPU_REPEATS,
        device=device,
    )
    if COMPILED in case.peers:
        case.peers[COMPILED] |= launches(compiled.step, device) | {"first_step_s": first}
    return case


def told(precision: torch.dtype) -> str:
    """As the tables say it."""
    return "fp32" if precision == torch.float32 else "bf16"


def _factors_of(one: Engine) -> dict[str, Tensor]:
    """A of every block as it is stored, in the coordinates of V_c."""
    return {name: block.A.detach().clone() for name, block in one.adapter.blocks.items()}


def _computing_in(precision: torch.dtype, device: str, step: Callable[[], object]) -> Callable[[], None]:
    """A peer's step as scripts compute in 16 bits: autocast around it, parameters in 32."""

    def computed() -> None:
        with torch.autocast(device.partition(":")[0], precision, enabled=precision != torch.float32):
            step()

    return computed


def check(
    peer: StepSide, plain: Engine, images: Tensor, labels: Tensor, classes: int, allowed: Tolerances = FLOAT
) -> list[Check]:
    """One step of a fresh peer against one of plain LoRA of ours that starts from the same A."""
    peer.show(images, labels, classes)
    plain.show(images, labels, classes)
    factors = peer.factors() or plain.factors()
    plain.start(factors)
    plain.step()
    peer.step()
    wanted = plain.gradients(factors)
    checks = [
        Check("logits before the step", relative(peer.logits, plain.logits), allowed.logits),
        Check("gradient by B of q, k, v", worst(peer.gradients(factors), wanted), allowed.gradients),
    ]
    if (updates := peer.updates()) is not None and allowed.updates is not None:
        checks.append(
            Check("update of q, k, v after the step", worst(updates, plain.updates()), allowed.updates)
        )
    return checks


def check_constraint(
    comp: Engine, plain: Engine, images: Tensor, labels: Tensor, classes: int, allowed: Tolerances = FLOAT
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
        Check("logits before the step", relative(plain.logits, comp.logits), allowed.logits),
        Check(
            "gradient by B within the complement",
            worst(comp.confined(plain.gradients({})), wanted),
            allowed.gradients,
        ),
    ]


def _forward_only(plain: Engine, images: Tensor, labels: Tensor, classes: int, allowed: Tolerances) -> Side:
    plain.show(images, labels, classes)
    space = plain.strategy.experience.spaces[0]

    @torch.no_grad()
    def forward() -> Tensor:
        plain.classifier.text.forget()
        return plain.classifier(images, space)

    before = forward()
    plain.step()
    return Side(
        FORWARD, forward, [Check("logits before the step", relative(before, plain.logits), allowed.logits)]
    )


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
