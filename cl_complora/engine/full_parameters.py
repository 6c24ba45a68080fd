"""Parameters that are trained as they are, without factors: chosen by what they do in the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import get_args

import torch
from torch import Tensor, nn

from ..config.training import Whole
from ..delta import TaskDelta

KINDS = get_args(Whole)

# The logit scale stays fixed, as everywhere in this project.
_FIXED = ("logit_scale", "logit_bias")
_POSITIONS = ("positional_embedding", "class_embedding", "pos_embed", "cls_token", "cls_emb")


def parameter_kinds(clip: nn.Module) -> dict[str, str]:
    """Parameter name → one of :data:`KINDS`, for everything that may be trained."""
    kinds = {}
    for path, module in clip.named_modules():
        for leaf, _ in module.named_parameters(recurse=False):
            name = f"{path}.{leaf}" if path else leaf
            if leaf in _FIXED:
                continue
            if isinstance(module, nn.Embedding):
                kinds[name] = "tokens"
            elif "Norm" in type(module).__name__:
                kinds[name] = "norms"
            elif leaf in _POSITIONS:
                kinds[name] = "positions"
            else:
                kinds[name] = "biases" if leaf.endswith("bias") else "weights"
    return kinds


def tower_of(name: str) -> str:
    """Tower that holds an open_clip parameter of this name: ``vision``, or ``text`` for whatever is not the
    image's."""
    return "vision" if name.startswith("visual.") else "text"


class WholeParameters:
    """The parameters of some kinds and towers: made trainable, turned into a delta, swapped with their past.

    Args:
        kinds: of :data:`KINDS`.
        towers: ``vision``, ``text`` or both.

    Raises:
        ValueError: for a kind that there is not, which would be left out without a word.
    """

    def __init__(self, kinds: Sequence[str], towers: Sequence[str]) -> None:
        unknown = next((kind for kind in kinds if kind not in KINDS), None)
        if unknown is not None:
            raise ValueError(f"whole: must be of {', '.join(KINDS)}, got {unknown!r}")
        self.kinds, self.towers = set(kinds), set(towers)
        self.trained: dict[str, nn.Parameter] = {}
        self._before: dict[str, Tensor] = {}

    def find(self, clip: nn.Module) -> dict[str, nn.Parameter]:
        """Name → parameter."""
        kinds = parameter_kinds(clip)
        return {
            name: p
            for name, p in clip.named_parameters()
            if kinds.get(name) in self.kinds and tower_of(name) in self.towers
        }

    def check(self, clip: nn.Module) -> None:
        """Refuse a kind of which the towers have no parameter.

        Raises:
            ValueError: naming it.
        """
        kinds = parameter_kinds(clip)
        there = {kinds[name] for name in self.find(clip)}
        if absent := sorted(self.kinds - there):
            raise ValueError(
                f"whole: no parameter of the towers ({', '.join(sorted(self.towers))}) is one of {absent}"
            )

    def towers_of(self, clip: nn.Module) -> set[str]:
        """Towers that hold any of the parameters."""
        return {tower_of(name) for name in self.find(clip)}

    def kinds_of_trained(self, clip: nn.Module) -> dict[int, str]:
        """``id`` of every parameter that is trained now → its kind."""
        kinds = parameter_kinds(clip)
        return {id(p): kinds[name] for name, p in self.trained.items()}

    def attach(self, clip: nn.Module) -> None:
        """Unfreeze, and remember where they start."""
        self.trained = self.find(clip)
        self._before = {name: p.detach().clone() for name, p in self.trained.items()}
        for p in self.trained.values():
            p.requires_grad_(True)

    @torch.no_grad()
    def learned(self) -> TaskDelta:
        """What has changed since :meth:`attach`."""
        return TaskDelta.of_changes(
            {n: (p.detach() - self._before[n]).cpu() for n, p in self.trained.items()}
        )

    @torch.no_grad()
    def settle(self, delta: TaskDelta) -> None:
        """W ← W_before + ΔW with the stored ΔW, so that a replay of the deltas gives the same bits."""
        for name, p in self.trained.items():
            p.copy_(self._before[name])
        delta.part(self.trained).add_to(self.trained)
        self._before = {}

    def weights(self) -> Mapping[str, Tensor]:
        """The parameters as they are now."""
        return dict(self.trained)

    @contextmanager
    def previous(self) -> Iterator[None]:
        """Swap the weights of before the experience in, and the current ones back."""
        current = {name: p.data for name, p in self.trained.items()}
        for name, p in self.trained.items():
            p.data = self._before[name]
        try:
            yield
        finally:
            for name, p in self.trained.items():
                p.data = current[name]
