"""What the matrices of a model are given by an experience, and the directions that hold most of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...clip.slots import Slot
from ...clip.text import evaluating
from ...data.labels import LabelSpace
from .step_inputs import first_input


def input_covariances(
    slots: Sequence[Slot], model: nn.Module, experience, images: int | None
) -> dict[str, Tensor]:
    """Slot name → Σ x xᵀ (``in × in``, float64) over the tokens of an experience's images and class
    prompts.

    Args:
        slots: of the model.
        model: the classifier.
        experience: whose images and prompts.
        images: at most so many, shared by the tasks that are trained together; all where None.
    """
    return {name: square for name, (square, *_) in input_moments(slots, model, experience, images).items()}


def input_moments(
    slots: Sequence[Slot], model: nn.Module, experience, images: int | None, padding: bool = True
) -> dict[str, tuple[Tensor, Tensor, int]]:
    """Slot name → (Σ x xᵀ, Σ x, number of x), as for :func:`input_covariances`.

    Args:
        slots, model, experience, images: as there.
        padding: whether what follows a prompt's end counts too, up to the longest of them.
    """
    found: dict[int, tuple[Tensor, Tensor, int]] = {}

    def add(host: nn.Module, x: Tensor) -> None:
        x = x.reshape(-1, x.shape[-1]).double()
        square, total, count = found.get(id(host), (0, 0, 0))
        found[id(host)] = (square + x.mT @ x, total + x.sum(0), count + len(x))

    parts = experience.parts
    share = max(1, images // len(parts)) if images is not None else max(len(part.train) for part in parts)
    # The classes lie in order: every so many images touch all of them, where they are no more than that.
    shown = [part.train.pixels[:: -(-len(part.train) // share)].split(64) for part in parts]
    show(slots, model, list(zip(experience.of_parts, shown, strict=True)), add, padding=padding)
    return {slot.name: found[id(slot.host)] for slot in slots}


def summed_inputs(slots: Sequence[Slot], model: nn.Module, experience, batch_size: int) -> dict[str, Tensor]:
    """Slot name → X Xᵀ (``in × in``, float64) with X = Σ over whole batches of x_bᵀ, ``in × (images ·
    tokens)``.

    Tokens at the same place of their batches are added up, signs and all, and images beyond the last whole
    batch are left out: that is what KeepLoRA's published code does (where there is no whole batch it looks at
    nothing; here all images are one then). Prompts are the same in every batch, and so looked at once. Tasks
    that are trained together have an X each, whose X Xᵀ are added up.
    """
    squares: dict[str, Tensor] = {}
    for part, space in zip(experience.parts, experience.of_parts, strict=True):
        found: dict[int, Tensor] = {}

        def add(host: nn.Module, x: Tensor, found: dict[int, Tensor] = found) -> None:
            x = x.reshape(-1, x.shape[-1])
            found[id(host)] = found[id(host)] + x if id(host) in found else x.clone()

        pixels = part.train.pixels
        whole = len(pixels) // batch_size * batch_size
        show(slots, model, [(space, pixels[:whole].split(batch_size) if whole else [pixels])], add)
        for slot in slots:
            x = found[id(slot.host)].double()
            squares[slot.name] = squares.get(slot.name, 0) + x.mT @ x
    return squares


@torch.no_grad()
def show(
    slots: Sequence[Slot],
    model: nn.Module,
    tasks: Sequence[tuple[LabelSpace, Iterable[Tensor]]],
    watch: Callable[[nn.Module, Tensor], None],
    padding: bool = True,
) -> None:
    """Let the hosts of slots read images and class prompts; ``watch`` is given (host, its input) every time.

    Args:
        slots, model: what reads.
        tasks: of each, the label space with its prompts, and batches of its images.
        watch: is called without gradients.
        padding: without it, ``watch`` is given a prompt's rows up to its end alone (``rows × in``), where the
            tower is known to read nothing behind it.
    """
    model.text.settle(model.text.tokens(tasks[0][0]))
    own: Tensor | None = None  # of the prompts that are being read

    def told(host: nn.Module, x: Tensor) -> None:
        watch(host, x if own is None else x[own])

    hosts = {id(slot.host): slot.host for slot in slots}.values()
    with _watching(hosts, told), evaluating(model), model.computing_everything():
        device = next(model.parameters()).device
        for space, images in tasks:
            for batch in images:
                model.image_features(batch.to(device))
            own = None if padding else model.text.up_to_the_end(space)
            model.text.encode_space(space)
            own = None


@contextmanager
def _watching(hosts: Iterable[nn.Module], watch: Callable[[nn.Module, Tensor], None]) -> Iterator[None]:
    def hook(host: nn.Module, args: tuple, kwargs: dict) -> None:
        watch(host, first_input(args, kwargs).detach())

    handles = [host.register_forward_pre_hook(hook, with_kwargs=True) for host in hosts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def outside(basis: Tensor | None, matrix: Tensor) -> Tensor:
    """(I − P) M for an orthonormal basis of P (``in × k``), or M itself."""
    if basis is None:
        return matrix
    basis = basis.to(matrix)
    return matrix - basis @ (basis.mT @ matrix)


def grown(
    basis: Tensor | None, matrix: Tensor, energy: float, room: int = 0, fewer: int = 0, least: int = 0
) -> Tensor:
    """The basis with the leading left singular vectors of (I − P) M that are needed to hold a share of ‖M‖²
    (gradient projection memory).

    Args:
        basis: ``d × k`` orthonormal, or None for nothing yet.
        matrix: M, ``d × n``.
        energy: share of ‖M‖²_F.
        room: directions that stay free.
        fewer: so many are added less than are needed.
        least: and so many at least.

    Returns:
        ``d × (k + new)``, float32 and contiguous like what is read back from a file: another layout rounds
        differently.
    """
    matrix = matrix.double()
    u, sigma, _ = torch.linalg.svd(outside(basis, matrix), full_matrices=False)
    left = sigma.square()
    missing = directions_missing(left, float(left.sum()), float(matrix.square().sum()), energy)
    return extended(basis, u, max(least, missing - fewer), room)


def directions_missing(energies: Tensor, left: float, total: float, energy: float) -> int:
    """How many leading directions outside a basis are needed to hold a share of all energy.

    Args:
        energies: of the directions outside, descending.
        left: their sum.
        total: energy of all directions.
        energy: share of it.
    """
    held = total - left + torch.cat([energies.new_zeros(1), energies.cumsum(0)])
    return int((held < energy * total * (1 - 1e-12)).sum())


def extended(basis: Tensor | None, directions: Tensor, count: int, room: int) -> Tensor:
    """The basis with the first ``count`` directions beside it, or as many as leave ``room``; float32 and
    contiguous."""
    taken = 0 if basis is None else basis.shape[1]
    new = directions[:, : max(0, min(count, len(directions) - room - taken))].float().contiguous()
    return new if basis is None else torch.cat([basis, new], 1)
