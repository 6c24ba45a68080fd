"""Comp-LoRA as an Avalanche plugin: attach before the optimiser is made, merge after the experience, recompute.

    from cl_complora.engine.plugin import CompLoRAPlugin
    Naive(model=…, optimizer=…, plugins=[CompLoRAPlugin(rank=4, energy=0.5)])

Our reconstruction of Comp-LoRA (Wang et al., arXiv 2501.15040); the paper's body and code are not public.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..clip.slots import MATRICES, TOWERS, Slot, open_slots, select_slots
from ..lowrank import LowRankBlock, TaskDelta
from ..subspace import Keep
from .adapter import AdapterPlugin, clip_of
from .subspaces import Constraint, Subspaces, stable_seed


class CompLoRAPlugin(AdapterPlugin, supports_distributed=False):
    """Low-rank updates per experience, in the complement of the principal subspace of the merged weights.

    Works in any Avalanche strategy whose model has linear layers or fused attention. All other parameters are frozen
    while an experience is trained and get their ``requires_grad`` back when the factors are merged.

    Args:
        rank: r of the factors.
        energy, keep: how many singular triples are protected, as a ratio or a :class:`~cl_complora.subspace.Keep`.
        scaling: s in y = W x + s·B′A′x.
        dropout: on the input of the low-rank path.
        matrices, towers, layers: which maps are adapted (see :func:`~cl_complora.clip.slots.select_slots`).
        constraint: all subspace settings at once, instead of ``energy``/``keep``.
        seed: of the factors' initialisation.

    Attributes:
        blocks: slot name → factors, while an experience is trained.
    """

    def __init__(
        self,
        rank: int = 4,
        energy: float | None = None,
        keep: Keep | None = None,
        scaling: float = 1.0,
        dropout: float = 0.0,
        matrices: Sequence[str] = MATRICES,
        towers: Sequence[str] = TOWERS,
        layers: Sequence[int] | None = None,
        constraint: Constraint | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if sum(setting is not None for setting in (energy, keep, constraint)) > 1:
            raise ValueError("give one of energy, keep and constraint")
        if constraint is None:
            constraint = Constraint(keep=keep or Keep("energy", 0.5 if energy is None else energy))
        self.rank, self.scaling, self.dropout, self.seed = rank, scaling, dropout, seed
        self.matrices, self.towers, self.layers, self.constraint = matrices, towers, layers, constraint
        self.slots: list[Slot] = []
        self.subspaces: Subspaces | None = None
        self.blocks: dict[str, LowRankBlock] = {}
        self._frozen: dict[str, bool] = {}

    def prepare(self, model: nn.Module) -> None:
        """Open the model's linear maps (once); outputs stay the same."""
        if self.subspaces is None:
            self.slots = select_slots(open_slots(clip_of(model)), self.matrices, self.towers, self.layers)
            self.subspaces = Subspaces(self.slots, self.constraint, self.rank, self.seed)

    def before_training_exp(self, strategy, **kwargs) -> None:
        """Refuse to train with an optimiser that does not hold every factor (Avalanche would not say a word)."""
        held = {id(p) for group in strategy.optimizer.param_groups for p in group["params"]}
        missing = [name for name, block in self.blocks.items() for p in (block.A, block.B) if id(p) not in held]
        if missing:
            raise RuntimeError(
                f"the optimiser does not hold the factors of {missing[0]}: was it made before they were?"
            )

    def attach(self, model: nn.Module) -> None:
        """Put fresh factors on every slot and freeze everything else."""
        self.prepare(model)
        if self.blocks:
            raise RuntimeError("factors are attached already: the previous experience was not merged")
        self._frozen = {name: p.requires_grad for name, p in model.named_parameters()}
        if self.constraint.select != "none":
            self.subspaces.refresh(self.task)
        model.requires_grad_(False)
        for slot in self.slots:
            output, input = self.subspaces.sides(slot, self.task)
            generator = torch.Generator().manual_seed(stable_seed(self.seed, self.task, slot.name))
            block = LowRankBlock(
                *slot.weight.shape, self.rank, self.scaling, output, input, self.dropout, generator
            ).to(slot.weight.device)
            slot.adapters.attach(slot.matrix, slot.rows, block)
            self.blocks[slot.name] = block
        model.train(model.training)

    @torch.no_grad()
    def merge(self, model: nn.Module) -> TaskDelta:
        """W ← W + ΔW for every slot, take the factors off, record ΔW and its geometry."""
        delta, geometry = TaskDelta(), {}
        for slot in self.slots:
            slot.adapters.detach(slot.matrix)
            b, a = (factor.detach().contiguous() for factor in self.blocks.pop(slot.name).factors())
            delta.factors[slot.key] = (b.cpu(), a.cpu())
            geometry[slot.name] = self._add(slot, b, a)
        for name, p in model.named_parameters():
            p.requires_grad_(self._frozen.get(name, False))
        self.deltas.append(delta)
        self.geometry.append(geometry)
        return delta

    def _add(self, slot: Slot, b: Tensor, a: Tensor) -> dict[str, float]:
        update, before = b @ a, slot.weight.detach().clone()
        slot.weight.add_(update)
        record = {"delta_norm": float(torch.linalg.matrix_norm(update.double()))}
        if self.constraint.select != "none":
            record |= {
                "k": self.subspaces.split(slot).k,
                "protected_overlap": self.subspaces.protected_overlap(slot, before),
            }
            record |= {f"overlap_{side}": share for side, share in self.subspaces.overlaps(slot, update).items()}
        self.subspaces.remember(slot, b, a)
        return record

    def effective_weights(self) -> dict[str, Tensor]:
        """W + s·B′A′ of every slot."""
        weights = {}
        for slot in self.slots:
            weights[slot.key] = slot.weight
            if slot.name in self.blocks:
                b, a = self.blocks[slot.name].factors()
                weights[slot.key] = slot.weight + b @ a
        return weights

    @contextmanager
    def previous(self) -> Iterator[None]:
        """Switch the factors off: the weights under them are those of before the experience."""
        hosts = {id(slot.adapters): slot.adapters for slot in self.slots}.values()
        for adapters in hosts:
            adapters.enabled = False
        try:
            yield
        finally:
            for adapters in hosts:
                adapters.enabled = True

    def state(self) -> dict:
        """When each slot was last decomposed."""
        return {"decomposed_at": self.subspaces.decomposed_at()}

    @torch.no_grad()
    def restore(self, model: nn.Module, deltas: Sequence[TaskDelta], states: Sequence[dict]) -> None:
        """As in the base class, repeating exactly the decompositions that the interrupted run made."""
        self.prepare(model)
        by_key = {slot.key: slot for slot in self.slots}
        for task, (delta, state) in enumerate(zip(deltas, states, strict=True)):
            if self.constraint.select != "none":
                self.subspaces.refresh(task, {name for name, made in state["decomposed_at"].items() if made == task})
            for key, (b, a) in delta.factors.items():
                slot = by_key[key]
                b, a = b.to(slot.weight.device), a.to(slot.weight.device)
                slot.weight.add_(b @ a)
                self.subspaces.remember(slot, b, a)
            self.deltas.append(delta)
