"""Where low-rank factors start: LoRA's random A, a fixed basis, singular components, or what the inputs look
like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..clip.slots import Slot
from ..clip.text import evaluating
from ..config.strategy import InputsStart
from ..lowrank import Side, Start
from ..subspace import Keep, principal
from .task_state import CarryingPlugin


class Starting(CarryingPlugin, supports_distributed=False):
    """LoRA's start (Kaiming A, zero B), and the base of the others.

    The adapter calls it; it stands among the plugins only so that what it carries over is stored with the
    run.
    """

    def look_ahead(self, slots: Sequence[Slot], model: nn.Module, experience) -> None:
        """Look at the coming experience, before factors are attached."""

    def of(self, slot: Slot, rank: int, scaling: float, input: Side) -> Start | None:
        """Start of one slot's factors; None for LoRA's."""

    def look_back(self, slots: Sequence[Slot], model: nn.Module, experience) -> None:
        """Look back on the experience, after its update was merged."""


class CoreStarting(Starting, supports_distributed=False):
    """NuSA-CL (arXiv 2510.21175): A is the input basis itself and fixed, so that ΔW = s·U M Vᵀ with M = B
    trained."""

    def of(self, slot: Slot, rank: int, scaling: float, input: Side) -> Start:
        """The identity in the coordinates of the input side."""
        return Start(a=torch.eye(input.basis.shape[1]), train_a=False)


class ComponentsStarting(Starting, supports_distributed=False):
    """MiLoRA (arXiv 2406.09044): s·B A starts as the r components of smallest singular value, both factors
    √(σ/s).

    MiLoRA moves those components out of the frozen weight; here the weight stays and they are taken off the
    update, which computes the same. Nothing confines the update afterwards.
    """

    def of(self, slot: Slot, rank: int, scaling: float, input: Side) -> Start:
        """The last min(rank, min(out, in)) singular components."""
        split = principal(slot.weight, Keep("number", 0))
        full = len(split.sigma)
        last = slice(full - min(rank, full), full)
        root = (split.sigma[last] / scaling).sqrt().to(slot.weight.dtype)
        b, a = split.u[:, last] * root, root[:, None] * split.v[:, last].mT
        return Start(a=a.cpu(), b=b.cpu())


class InputsStarting(Starting, supports_distributed=False):
    """InfLoRA (Liang & Li, CVPR 2024, arXiv 2404.00228): A is fixed inside what only this task's inputs use.

    With H the inputs (tokens × in) of a matrix and M an orthonormal basis of what earlier tasks used,

        A = (leading r right singular vectors of H (I − M Mᵀ))ᵀ / √3,   B trained from zero

    so that the update does not act on M at all. After the task M grows by the directions that are needed to
    hold ``energy`` of the task's input energy (gradient projection memory, of which DualGPM stores the
    smaller half).
    """

    def __init__(self, settings: InputsStart) -> None:
        super().__init__()
        self.settings = settings
        self.used: dict[str, Tensor] = {}
        self._seen: dict[str, Tensor] = {}

    def look_ahead(self, slots: Sequence[Slot], model: nn.Module, experience) -> None:
        """Input covariances of the coming experience."""
        self._seen = input_covariances(slots, model, experience, self.settings.images)

    def of(self, slot: Slot, rank: int, scaling: float, input: Side) -> Start:
        """The leading free input directions."""
        covariance = self._seen[slot.name]
        values, vectors = torch.linalg.eigh(self._free(slot.name, covariance))
        a = vectors[:, values.argsort(descending=True)[:rank]].mT / 3**0.5
        if (
            slot.name in self.used
        ):  # exact zero on what earlier tasks used, not merely up to an eigenvalue's rounding
            basis = self.used[slot.name].to(a)
            a = a - (a @ basis) @ basis.mT
        return Start(a=a.to(slot.weight.dtype).cpu(), train_a=False)

    def _free(self, name: str, covariance: Tensor) -> Tensor:
        if name not in self.used:
            return covariance
        basis = self.used[name].to(covariance)
        outside = (
            torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device) - basis @ basis.mT
        )
        return outside @ covariance @ outside

    def look_back(self, slots: Sequence[Slot], model: nn.Module, experience) -> None:
        """Add the directions that this experience's inputs used."""
        for name, covariance in input_covariances(slots, model, experience, self.settings.images).items():
            total = float(covariance.trace())
            free = self._free(name, covariance)
            values, vectors = torch.linalg.eigh(free)
            values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
            held = total - float(free.trace()) + torch.cat([values.new_zeros(1), values.cumsum(0)])
            missing = int((held < self.settings.energy * total * (1 - 1e-12)).sum())
            room = len(covariance) - 1 - (self.used[name].shape[1] if name in self.used else 0)
            # Contiguous like what is read back from a file: another layout rounds differently.
            new = vectors[:, : max(0, min(missing, room))].float().contiguous()
            self.used[name] = torch.cat([self.used[name], new], 1) if name in self.used else new

    def tensors(self) -> dict[str, Tensor]:
        """The bases M."""
        return dict(self.used)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take them back."""
        self.used = dict(tensors)


@torch.no_grad()
def input_covariances(slots: Sequence[Slot], model: nn.Module, experience, images: int) -> dict[str, Tensor]:
    """Slot name → Σ x xᵀ (``in × in``, float64) over the tokens of an experience's images and class
    prompts."""
    found: dict[int, Tensor] = {}

    def watch(host: nn.Module, args: tuple, kwargs: dict) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        x = x.detach().reshape(-1, x.shape[-1]).double()
        found[id(host)] = found.get(id(host), 0) + x.mT @ x

    with evaluating(model):
        model.text.encode_space(
            experience.spaces[0]
        )  # a text tower's first call also tries whether it can be trimmed
    with (
        _watching({id(slot.host): slot.host for slot in slots}.values(), watch),
        evaluating(model),
        model.computing_everything(),
    ):
        share = max(1, images // len(experience.parts))
        device = next(model.parameters()).device
        for part, space in zip(experience.parts, experience.spaces, strict=True):
            # The classes lie in order: every so many images touch all of them.
            pixels = part.train.pixels[:: -(-len(part.train) // share)]
            for batch in pixels.split(64):
                model.image_features(batch.to(device))
            model.text.encode_space(space)
    return {slot.name: found[id(slot.host)] for slot in slots}


@contextmanager
def _watching(hosts, watch) -> Iterator[None]:
    handles = [host.register_forward_pre_hook(watch, with_kwargs=True) for host in hosts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
