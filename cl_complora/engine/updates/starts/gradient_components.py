"""LoRA-GA: low-rank factors that start as singular vectors of the coming task's gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ....clip.slots import Slot
from ....config.factors import GradientComponentsStart
from ....lowrank import Side, Start
from ..gradients import mean_gradients
from .initialisation import Starting


class GradientComponentsStarting(Starting, supports_distributed=False):
    """LoRA-GA (Wang et al., NeurIPS 2024, arXiv 2407.05000, its code): the first step of the factors moves
    the weights as a step of the weights themselves would, as far as a rank allows.

    With G = ∂ cross-entropy/∂W = U S Vᵀ (``out × in``) over the task,

        A = c·V[:, :r]ᵀ,   B = c·U[:, r:2r],   c = out^¼ / √γ

    and s·B A is taken off again. In a subspace G is U_cᵀ G V_c, the gradient in its coordinates.
    """

    def __init__(self, settings: GradientComponentsStart) -> None:
        super().__init__()
        self.settings = settings
        self._gradients: dict[str, Tensor] = {}

    def look_ahead(self, slots: Sequence[Slot], model: nn.Module, experience) -> None:
        """The gradient of the coming experience."""
        self._gradients = mean_gradients(slots, model, experience, self.settings.batch_size)
        self.notes = []

    def begun(self) -> None:
        """As in the base class."""
        self._gradients = {}

    def of(self, slot: Slot, rank: int, scaling: float, input: Side, output: Side | None = None) -> Start:
        """Singular vectors of the gradient in the coordinates of both sides; half of those that there are
        where twice the rank is more."""
        gradient = self._gradients[slot.name].double()
        if output is not None and output.basis is not None:
            gradient = output.basis.to(gradient).mT @ gradient
        if input is not None and input.basis is not None:
            gradient = gradient @ input.basis.to(gradient)
        most = max(1, min(gradient.shape) // 2)
        if rank > most:
            self.notes.append(
                f"{slot.name}: its gradient has {min(gradient.shape)} singular vectors, of which both factors"
                f" take {most} instead of {rank}"
            )
        b, a = gradient_components(
            gradient, min(rank, most), len(slot.weight), self.settings.gamma, self.settings.leading
        )
        return Start(a=a.to(slot.weight.dtype).cpu(), b=b.to(slot.weight.dtype).cpu())


def gradient_components(
    gradient: Tensor, rank: int, out: int, gamma: float, leading: str
) -> tuple[Tensor, Tensor]:
    """(B, A) of singular vectors of length out^¼ / √γ.

    Args:
        gradient: G, in whichever coordinates.
        rank: r.
        out: rows of the weight.
        gamma: γ.
        leading: ``input`` gives A the first r vectors and B the next r, ``output`` the other way round.
    """
    u, _, vh = torch.linalg.svd(gradient, full_matrices=False)
    first, second = slice(rank), slice(min(rank, len(vh) - rank), 2 * rank)
    of_a, of_b = (first, second) if leading == "input" else (second, first)
    length = out**0.25 / gamma**0.5
    return u[:, of_b] * length, vh[of_a] * length
