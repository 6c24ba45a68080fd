"""Comp-LoRA as an Avalanche plugin: attach before the optimiser is made, merge after the experience,
recompute.

    from cl_complora.engine.updates.complora import CompLoRAPlugin
    Naive(model=…, optimizer=…, plugins=[CompLoRAPlugin(rank=4, energy=0.5)])

Our reconstruction of Comp-LoRA (Wang et al., arXiv 2501.15040): only the paper's abstract has been
read, and no code of it is public.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from numbers import Integral

import torch
from torch import Tensor, nn

from ...clip.classifier import ClipClassifier
from ...clip.slots import MATRICES, TOWERS, Slot, check_names, open_slots, select_slots
from ...delta import TaskDelta
from ...lowrank import LowRankBlock
from ...subspace import Keep, by_matrix
from ..adapter import AdapterPlugin, Merging, clip_of, slot_norms, whole_norms
from ..constraints import Constraint, Subspaces, shapes_of, stable_seed
from ..full_parameters import WholeParameters
from ..stock_plugins import check_data, check_neighbours
from ..task_state import CarryingPlugin
from .between import Between
from .effective_penalty import act_on_effective_weights
from .stacked_blocks import StackedBlocks
from .starts.initialisation import Starting

# Devices that wait for the launches of many small programs.
TOGETHER_ON = {"cuda"}


class CompLoRAPlugin(AdapterPlugin, supports_distributed=False):
    """Low-rank updates per experience, in the complement of the principal subspace of the merged weights.

    Works in any Avalanche strategy whose model has linear layers or fused attention. All other parameters are
    frozen while an experience is trained and get their ``requires_grad`` back when the factors are merged.

    Avalanche's own plugins beside it: penalties on weights (EWC, MAS) act on the effective weights W + ΔW and
    have to stand after this plugin; replay, AGEM, GSS, LwF, schedules, early stopping and metrics work as
    they are; those that would crash later or do nothing are refused by name before anything is trained (all
    in :mod:`~cl_complora.engine.stock_plugins`). Anybody else's plugins pass.

    Args:
        rank: r of the factors.
        rank_last: r in a tower's last block, to which it grows evenly from ``rank`` in the first.
        energy, keep: how many singular triples are protected, as a ratio or a
            :class:`~cl_complora.subspace.Keep`.
        scaling: s in y = W x + s·B′A′x.
        dropout: on the input of the low-rank path.
        matrices, towers, layers: which maps are adapted (see :func:`~cl_complora.clip.slots.select_slots`).
        constraint: all subspace settings at once, instead of ``energy``/``keep``.
        seed: of the factors' initialisation.
        start: where the factors start (LoRA's way by default).
        whole: kinds of parameters of the same towers that are trained as they are, beside the factors
            (see :data:`~cl_complora.engine.full_parameters.KINDS`).
        merging: as in the base class.
        depth_scale: γ of a scaling that grows from γ·s in a tower's first block to s in its last.
        own_masks: whether maps that read the same input drop different entries of it.
        between: what stands between the factors (nothing by default).
        row_scale: whether the lengths of the weights' rows are trained beside the factors (DoRA); updates are
            of full rank then, and stored whole.

    Attributes:
        blocks: slot name → factors, while an experience is trained.

    Raises:
        ValueError: for an energy, a rank, or a name of matrices or towers that there is not.
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
        start: Starting | None = None,
        whole: Sequence[str] = (),
        merging: Merging | None = None,
        depth_scale: float | None = None,
        own_masks: bool = False,
        between: Between | None = None,
        row_scale: bool = False,
        rank_last: int | None = None,
    ) -> None:
        super().__init__(merging)
        if sum(setting is not None for setting in (energy, keep, constraint)) > 1:
            raise ValueError("give one of energy, keep and constraint")
        if energy is not None and not 0 < energy <= 1:
            raise ValueError(f"energy: must be greater than 0 and at most 1, got {energy}")
        for name, value in (("rank", rank), ("rank_last", rank if rank_last is None else rank_last)):
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name}: must be a whole number, at least 1, got {value}")
        check_names(matrices, towers)
        if constraint is None:
            constraint = Constraint(keep=keep or Keep("energy", 0.5 if energy is None else energy))
        self.rank, self.scaling, self.dropout, self.seed = rank, scaling, dropout, seed
        self.rank_last = rank if rank_last is None else rank_last
        self.matrices, self.towers, self.layers, self.constraint = matrices, towers, layers, constraint
        self.depth_scale, self.own_masks, self.row_scale = depth_scale, own_masks, row_scale
        self.start, self.between = start or Starting(), between or Between()
        self.whole = WholeParameters(whole, towers)
        self.slots: list[Slot] = []
        self.subspaces: Subspaces | None = None
        self.blocks: dict[str, LowRankBlock] = {}
        self._frozen: dict[str, bool] = {}
        self._depth: dict[str, int] = {}
        self._crowded: dict[str, int] = {}
        self._neighbours: list = []
        self._stacked: StackedBlocks | None = None

    def prepare(self, model: nn.Module) -> None:
        """Open the model's linear maps (once); outputs stay the same."""
        if self.subspaces is None:
            there = open_slots(clip_of(model))
            self.slots = select_slots(there, self.matrices, self.towers, self.layers)
            self.whole.check(clip_of(model))
            self.start.check(self.slots)
            self.between.check(self.slots)
            for slot in there:
                self._depth[slot.tower] = max(slot.layer, self._depth.get(slot.tower, 0))
            self.subspaces = Subspaces(self.slots, self.constraint, max(self.rank, self.rank_last), self.seed)

    def moved_towers(self, model: nn.Module) -> set[str]:
        """As in the base class."""
        self.prepare(model)
        return {slot.tower for slot in self.slots} | self.whole.towers_of(clip_of(model))

    def idle_towers(self, model: nn.Module) -> list[str]:
        """As in the base class."""
        there = self.moved_towers(model)
        # A model without towers has slots of none.
        return [tower for tower in self.towers if tower not in there] if "" not in there else []

    def before_training(self, strategy, **kwargs) -> None:
        """Refuse neighbours that cannot work; let stock penalties act on effective weights.

        Raises:
            UserError: naming each one, and what to use instead.
        """
        self._neighbours = strategy.plugins
        penalties = check_neighbours(self, strategy.plugins, strategy.model)
        if penalties:
            self.prepare(strategy.model)
        for penalty in penalties:
            act_on_effective_weights(penalty, self.slots, self.blocks)

    def before_train_dataset_adaptation(self, strategy, **kwargs) -> None:
        """As in the base class; the factors' start may depend on the experience."""
        check_data(self._neighbours, strategy.experience)
        self.prepare(strategy.model)
        for part in (self.start, self.between):
            part.look_ahead(self.slots, strategy.model, strategy.experience)
        super().before_train_dataset_adaptation(strategy, **kwargs)

    def after_training_exp(self, strategy, **kwargs) -> None:
        """As in the base class; the start of later factors may depend on the experience."""
        super().after_training_exp(strategy, **kwargs)
        self.start.look_back(self.slots, strategy.model, strategy.experience)

    def before_training_exp(self, strategy, **kwargs) -> None:
        """Refuse to train with an optimiser that does not hold every factor (Avalanche would not say a
        word)."""
        held = {id(p) for group in strategy.optimizer.param_groups for p in group["params"]}
        missing = [
            name for name, block in self.blocks.items() for p in block.parameters() if id(p) not in held
        ]
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
        self.whole.attach(clip_of(model))
        self.between.begin(self.slots, self.task)
        self._crowded = {}
        for slot, (output, input) in zip(self.slots, self.subspaces.sides(self.task), strict=True):
            generator = torch.Generator().manual_seed(stable_seed(self.seed, self.task, slot.name))
            scaling, rank = self.scaling_of(slot), self.rank_of(slot)
            left = min(side.left(full) for side, full in zip((output, input), slot.weight.shape, strict=True))
            if self.constraint.updates and left < rank:
                self._crowded[slot.name] = left
            block = LowRankBlock(
                *slot.weight.shape,
                rank,
                scaling,
                output,
                input,
                self.dropout,
                generator,
                self.start.of(slot, rank, scaling, input, output),
                self.own_masks,
                self.between.of(slot, rank),
                slot.weight if self.row_scale else None,
            ).to(slot.weight.device)
            slot.adapters.attach(slot.matrix, slot.rows, block)
            self.blocks[slot.name] = block
        self.start.begun()
        self.between.begun(self.blocks)
        model.train(model.training)

    def rank_of(self, slot: Slot) -> int:
        """r of a slot: r + (r_last − r)·l/(L − 1) in block l of L, halves rounded up; r outside blocks."""
        deepest = self._depth[slot.tower]
        if slot.layer < 0 or deepest < 1:
            return self.rank
        return rank_at(self.rank, self.rank_last, slot.layer, deepest)

    def scaling_of(self, slot: Slot) -> float:
        """s of a slot: s·(γ + (1 − γ)·l/(L − 1)) in block l of L where the scaling grows with depth, else
        s."""
        deepest = self._depth[slot.tower]
        if self.depth_scale is None or slot.layer < 0 or deepest < 1:
            return self.scaling
        return self.scaling * (self.depth_scale + (1 - self.depth_scale) * slot.layer / deepest)

    @torch.no_grad()
    def merge(self, model: nn.Module) -> TaskDelta:
        """W ← W + ΔW for every slot, take the factors off, record ΔW and its geometry."""
        learned, rescaled = self.whole.learned(), {}
        self._stacked = None
        for slot in self.slots:
            slot.adapters.detach(slot.matrix)
            block = self.blocks.pop(slot.name)
            self.between.learned(slot, block)
            if self.row_scale:
                rescaled[slot.name] = block.update().detach()
            else:
                b, a = (factor.detach().cpu().contiguous() for factor in block.factors())
                learned.factors[slot.key] = (b, a)
        learned = learned.plus(self._whole_of(rescaled, model))
        delta, slots = self.merging(learned, self.deltas), self.slots
        if self.row_scale:
            adapted = {slot.parameter: clip_of(model).get_parameter(slot.parameter) for slot in slots}
            kept = delta.part(adapted)
            slots = [slot for slot in slots if slot.parameter in kept.dense | kept.rows]
            records = slot_norms(kept, slots, adapted)
            kept.add_to(adapted)
        else:
            slots = [slot for slot in slots if slot.key in delta.factors]
            records = by_matrix(
                lambda slot: self._add(slot, *delta.factors[slot.key]), slots, shapes_of(slots)
            )
        geometry = {slot.name: record for slot, record in zip(slots, records, strict=True)}
        self.whole.settle(delta)
        geometry |= whole_norms(delta.part(self.whole.trained))
        for name, p in model.named_parameters():
            p.requires_grad_(self._frozen.get(name, False))
        self.deltas.append(delta)
        self.geometry.append(geometry)
        return delta

    def _whole_of(self, updates: dict[str, Tensor], model: nn.Module) -> TaskDelta:
        """Updates of slots as those of the parameters that they are parts of."""
        changes: dict[str, Tensor] = {}
        for slot in self.slots:
            if slot.name in updates:
                whole = clip_of(model).get_parameter(slot.parameter)
                change = changes.setdefault(slot.parameter, torch.zeros(whole.shape))
                change[slot.rows] = updates[slot.name].cpu()
        return TaskDelta.of_changes(changes)

    def _add(self, slot: Slot, b: Tensor, a: Tensor) -> dict[str, float]:
        before = slot.weight.detach().clone()
        update = self._write(slot, b, a)
        record = {"delta_norm": float(torch.linalg.matrix_norm(update.double()))}
        if self.constraint.select != "none":
            record |= {
                "k": self.subspaces.split(slot).k,
                "protected_overlap": self.subspaces.protected_overlap(slot, before),
            }
            record |= {
                f"overlap_{side}": share for side, share in self.subspaces.overlaps(slot, update).items()
            }
        return record

    def _write(self, slot: Slot, b: Tensor, a: Tensor) -> Tensor:
        """W ← W + B A, remembered; the product."""
        b, a = b.to(slot.weight.device), a.to(slot.weight.device)
        update = b @ a
        slot.weight.add_(update)
        self.subspaces.remember(slot, b, a)
        return update

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """As in the base class."""
        return {slot.key: self.blocks[slot.name].factors() for slot in self.slots if slot.name in self.blocks}

    def hosts(self) -> list[tuple[nn.Module, Tensor]]:
        """As in the base class."""
        return [(self.blocks[slot.name], slot.weight) for slot in self.slots if slot.name in self.blocks]

    def composed(self, model: ClipClassifier) -> AbstractContextManager[None]:
        """As in the base class, on a GPU.

        Not where parts of the towers are computed again for the gradient, which would miss what was composed
        before, nor where they are compiled.
        """
        how = model.computing
        again = how.chunk is not None or how.checkpointing or how.compiled
        blocks = list(self.blocks.values())
        if again or not blocks or blocks[0].B.device.type not in TOGETHER_ON:
            return nullcontext()
        if self._stacked is None or not self._stacked.holds(blocks):
            self._stacked = StackedBlocks(blocks)
        return self._stacked.composed(model.precision)

    def carriers(self) -> list[CarryingPlugin]:
        """As in the base class."""
        return [self.start, self.between]

    def trained_factors(self) -> list[Tensor]:
        """As in the base class."""
        return [factor for block in self.blocks.values() for factor in (block.A, block.B)]

    def notes(self) -> list[str]:
        """As in the base class."""
        if not self._crowded:
            return list(self.start.notes)
        fewest = min(self._crowded, key=self._crowded.__getitem__)
        left = self._crowded[fewest]
        crowded = (
            f"outside the principal subspace and earlier updates {len(self._crowded)} of {len(self.slots)} "
            f"matrices have fewer directions left than the rank, {fewest} {left}: they learn that much less"
            f"{', and what is left may be of an earlier update' if left == 1 else ''}; a smaller "
            "adapter.rank or adapter.subspace.keep leaves more"
        )
        return [*self.start.notes, crowded]

    def whole_kinds(self, model: nn.Module) -> dict[int, str]:
        """As in the base class."""
        return self.whole.kinds_of_trained(clip_of(model))

    def effective_weights(self) -> dict[str, Tensor]:
        """W + s·B′A′ of every slot; within :meth:`previous`, W."""
        weights = {slot.key: slot.weight for slot in self.slots}
        attached = [s for s in self.slots if s.name in self.blocks and s.adapters.enabled]
        weights |= {slot.key: weights[slot.key] + self.blocks[slot.name].update() for slot in attached}
        return weights | self.whole.weights()

    @contextmanager
    def previous(self) -> Iterator[None]:
        """Switch the factors off: the weights under them are those of before the experience."""
        hosts = {id(slot.adapters): slot.adapters for slot in self.slots}.values()
        for adapters in hosts:
            adapters.enabled = False
        try:
            with self.whole.previous():
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
        parameters = dict(clip_of(model).named_parameters())
        for task, (delta, state) in enumerate(zip(deltas, states, strict=True)):
            if self.constraint.select != "none":  # for a skipped task nothing was decomposed
                again = {name for name, made in state["decomposed_at"].items() if made == task}
                self.subspaces.refresh(task, again)
            delta.part(parameters).add_to(parameters)
            by_matrix(
                lambda update: self._write(by_key[update[0]], *update[1]),
                list(delta.factors.items()),
                shapes_of(self.slots),
            )
            self.deltas.append(delta)


def rank_at(first: int, last: int, layer: int, deepest: int) -> int:
    """Rank in block ``layer`` of those from 0 to ``deepest``, where it goes evenly from one to the other."""
    return math.floor(first + (last - first) * layer / deepest + 0.5)
