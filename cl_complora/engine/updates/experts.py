"""DAC: a pool of rank-1 experts in every matrix, of which a batch picks some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...clip.attention import SplitAttention
from ...clip.slots import Slot
from ...config.factors import Experts
from ...config.penalties import Apart
from ...lowrank import LowRankBlock, kaiming
from ..checkpoint import StepState
from ..constraints import stable_seed
from ..regularisers import RegulariserPlugin
from .between import Between
from .complora import CompLoRAPlugin
from .step_inputs import StepInputs


class Pool(nn.Module):
    """(s·B, A) → the columns and rows of the experts that are picked.

    Args:
        weight, bias: of the router, ``r × in`` and ``(r,)``; not trained.
        active: marks of a sample, and experts of a batch.

    Attributes:
        counts: marks of every expert in the task until now.
        picked: indices of experts, ascending; None before the first batch stands for all.
    """

    def __init__(self, weight: Tensor, bias: Tensor, active: int) -> None:
        super().__init__()
        self.active, self.picked = active, None
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.register_buffer("counts", torch.zeros(len(bias)), persistent=False)

    def forward(self, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """``out × r``, ``r × in`` → ``out × n``, ``n × in``."""
        return (b, a) if self.picked is None else (b[:, self.picked], a[self.picked])

    @torch.no_grad()
    def pick(self, first: Tensor) -> None:
        """Every sample marks its ``active`` most probable experts, and the most marked ones are picked.

        Args:
            first: the first token of each sample, ``samples × in``.
        """
        marks = marked(first.to(self.weight) @ self.weight.mT + self.bias, self.active)
        self.counts += marks
        self.picked = most(marks, self.active)


def marked(scores: Tensor, active: int) -> Tensor:
    """How many samples have each expert among their ``active`` of highest score, ``(r,)``."""
    chosen = torch.zeros_like(scores).scatter_(1, scores.topk(active, dim=1).indices, 1.0)
    return chosen.sum(0)


def most(counts: Tensor, number: int) -> Tensor:
    """Indices of the largest, ascending; the first of equal ones."""
    return counts.argsort(descending=True, stable=True)[:number].sort().values


class ExpertsPlugin(Between, StepInputs, StepState, supports_distributed=False):
    """DAC (its authors' code): y = W x + s·Σ_{i picked} b_i a_iᵀ x for all tokens of a batch, and ΔW of the
    task = s·Σ over the most marked ``merged`` experts; what the others learned is dropped.

    A router, drawn anew for every task and matrix and never trained (the choice has no gradient), reads the
    first token of each sample of the matrix's own input. What is dropped out of the input it reads here, in
    the authors' code it does not.
    """

    def __init__(self, settings: Experts, seed: int) -> None:
        super().__init__()
        self.settings, self.seed = settings, seed
        self.past: dict[str, dict[str, Tensor]] = {"all": {}, "merged": {}}
        self._slots: Sequence[Slot] = ()
        self._pools: dict[str, Pool] = {}
        self._towers_batch_first: dict[str, bool] = {}
        self._task = 0

    def begin(self, slots: Sequence[Slot], task: int) -> None:
        """Other routers."""
        self._slots, self._task, self._pools = slots, task, {}
        self._towers_batch_first = {slot.tower: True for slot in slots}
        for slot in slots:
            if isinstance(slot.host, SplitAttention):
                self._towers_batch_first[slot.tower] &= slot.host.batch_first

    def of(self, slot: Slot, rank: int) -> nn.Module:
        """The slot's pool."""
        generator = torch.Generator().manual_seed(stable_seed(self.seed, self._task, slot.name, "router"))
        width = slot.weight.shape[1]
        # A linear layer's own start, for weight and bias alike.
        router = kaiming(rank, width, generator), torch.empty(rank)
        router[1].uniform_(-(width**-0.5), width**-0.5, generator=generator)
        self._pools[slot.name] = Pool(*router, self.settings.active)
        return self._pools[slot.name]

    def watched(self) -> Sequence[Slot]:
        """All that have a pool."""
        return self._slots

    def given(self, slot: Slot, x: Tensor) -> None:
        """Pick for this batch."""
        self._pools[slot.name].pick(first_tokens(x, self._batch_first(slot)))

    def _batch_first(self, slot: Slot) -> bool:
        return self._towers_batch_first[slot.tower]

    def learned(self, slot: Slot, block: LowRankBlock) -> None:
        """From now on those count that were marked most often."""
        pool = self._pools[slot.name]
        pool.picked = most(pool.counts, self.settings.merged)
        # Where the next task's factors will be, beside which they are looked at in every step.
        columns = block.composed()[0].detach() / block.scaling
        for kind, new in (("all", columns), ("merged", columns[:, pool.picked])):
            before = self.past[kind].get(slot.name)
            new = new if before is None else torch.cat([before.to(new), new], 1)
            self.past[kind][slot.name] = new.contiguous()

    def tensors(self) -> dict[str, Tensor]:
        """Columns of earlier tasks' experts."""
        return {f"{kind}/{name}": b for kind, held in self.past.items() for name, b in held.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take them back."""
        for key, b in tensors.items():
            kind, _, name = key.partition("/")
            self.past[kind][name] = b

    def step_state(self) -> dict[str, Tensor]:
        """Marks, and what was picked last."""
        held = {f"counts/{name}": pool.counts for name, pool in self._pools.items()}
        picked = {name: pool.picked for name, pool in self._pools.items() if pool.picked is not None}
        return held | {f"picked/{name}": found for name, found in picked.items()}

    def load_step_state(self, tensors: Mapping[str, Tensor]) -> None:
        """As in the base class."""
        for name, pool in self._pools.items():
            pool.counts.copy_(tensors[f"counts/{name}"])
            if f"picked/{name}" in tensors:
                pool.picked = tensors[f"picked/{name}"].to(pool.counts.device)


def first_tokens(x: Tensor, batch_first: bool) -> Tensor:
    """``samples × in`` of a matrix's input, which has one vector a sample, or a sequence or grid of them."""
    if x.ndim == 2:
        return x
    return x.flatten(1, -2)[:, 0] if batch_first else x[0]


class ApartPlugin(RegulariserPlugin, supports_distributed=False):
    """strength · mean over matrices of Σ |B_topᵀ B_past|, B_top the experts that would be merged now.

    B as it acts on the output, without the scaling. In the authors' code B_past should be the columns that
    were merged and is all of them, since a key is looked for one level too high.
    """

    def __init__(self, settings: Apart, adapter: CompLoRAPlugin, seed: int) -> None:
        super().__init__()
        self.settings, self.adapter = settings, adapter

    def penalty(self, strategy) -> Tensor | None:
        """From the second task on."""
        plugin = self.adapter.between
        past = plugin.past[self.settings.past]
        overlaps = []
        for name, before in past.items():
            block = self.adapter.blocks[name]
            top = most(block.between.counts, plugin.settings.merged)
            b = block.composed()[0][:, top] / block.scaling
            overlaps.append((b.mT @ before.to(b)).abs().sum())
        return self.settings.strength * torch.stack(overlaps).mean() if overlaps else None
