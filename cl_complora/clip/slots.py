"""Slots: the matrices of a model that can carry a low-rank update, found by what they are.

``open_slots`` replaces attention modules and linear layers by their adaptable hosts once (same parameters, same
state_dict keys, same outputs) and lists every matrix with its tower, layer and kind. Works on open_clip's own towers,
on timm towers (``attn.qkv``, ``attn.proj``) and on any other module with linear layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..lowrank import AdaptedLinear, Adapters, row_key
from .attention import SplitAttention, is_fused_attention

MATRICES = ("q", "k", "v", "o", "fc", "proj", "other")
TOWERS = ("vision", "text")

_MLP_IN = {"c_fc", "fc1", "lin1", "intermediate", "w1", "fc"}
_MLP_OUT = {"c_proj", "fc2", "lin2", "w2"}


@dataclass(frozen=True)
class Slot:
    """One adaptable matrix.

    Attributes:
        name: ``<module path>.<matrix>``, unique in the model.
        tower: ``vision``, ``text``, or ``""`` for a model without towers.
        layer: index of the block that it sits in, −1 outside blocks.
        matrix: one of :data:`MATRICES`.
        parameter: the state_dict key of the weight that it is a part of.
        rows: its rows in that weight.
        host: the module whose adapters it uses.
    """

    name: str
    tower: str
    layer: int
    matrix: str
    parameter: str
    rows: slice
    host: SplitAttention | AdaptedLinear

    @property
    def weight(self) -> Tensor:
        """``out × in`` view of the weight; writing to it changes the model."""
        whole = self.host.in_proj_weight if isinstance(self.host, SplitAttention) else self.host.weight
        return whole[self.rows]

    @property
    def key(self) -> str:
        """Key of the matrix in a :class:`~cl_complora.lowrank.TaskDelta`."""
        return row_key(self.parameter, self.rows)

    @property
    def adapters(self) -> Adapters:
        """Where a low-rank block for this matrix is attached."""
        return self.host.adapters


def _tower(path: Sequence[str], has_vision: bool) -> str:
    if "visual" in path or "vision_model" in path:
        return "vision"
    return "text" if has_vision else ""


def _layer(path: Sequence[str]) -> int:
    # The last number of a path is the block within its stage (resblocks.3, blocks.7, stages.2.1…).
    numbers = [int(part) for part in path if re.fullmatch(r"\d+", part)]
    return numbers[-1] if numbers else -1


def _matrix(path: Sequence[str]) -> str:
    leaf, parent = path[-1], path[-2] if len(path) > 1 else ""
    if leaf in ("out_proj", "o_proj") or (leaf == "proj" and "attn" in parent):
        return "o"
    if leaf in ("q_proj", "k_proj", "v_proj"):
        return leaf[0]
    if leaf in _MLP_IN:
        return "fc"
    return "proj" if leaf in _MLP_OUT else "other"


def open_slots(model: nn.Module) -> list[Slot]:
    """Make every linear map of ``model`` adaptable, in place, and list them (idempotent).

    Args:
        model: an open_clip model, a wrapper around one, or any module.

    Returns:
        The slots in module order; fused q, k, v weights give one slot per matrix.
    """
    for path, module in list(model.named_modules()):
        if is_fused_attention(module) and not isinstance(module, SplitAttention):
            _replace(model, path, SplitAttention(module))
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and not isinstance(module, AdaptedLinear) and not _is_inside(model, path):
            _replace(model, path, AdaptedLinear(module))
    return list(_slots(model))


def _is_inside(model: nn.Module, path: str) -> bool:
    # A linear that belongs to an attention which stays fused (cosine, pooling with another width…) is read by its
    # parent's functional code, so replacing it would have no effect.
    parent = model.get_submodule(path.rpartition(".")[0])
    return hasattr(parent, "in_proj_weight") and not isinstance(parent, SplitAttention)


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    module.train(model.get_submodule(path).training)
    setattr(model.get_submodule(parent), leaf, module)


def _slots(model: nn.Module) -> Iterable[Slot]:
    has_vision = any("visual" in name.split(".") or "vision_model" in name.split(".") for name, _ in model.named_modules())
    for path, module in model.named_modules():
        parts = path.split(".")
        tower, layer = _tower(parts, has_vision), _layer(parts)
        if isinstance(module, SplitAttention):
            for matrix in "qkv":
                yield Slot(f"{path}.{matrix}", tower, layer, matrix, f"{path}.in_proj_weight", module.rows(matrix), module)
        elif isinstance(module, AdaptedLinear):
            rows, width = module.out_features, module.in_features
            if parts[-1] == "qkv" and rows == 3 * width:
                for index, matrix in enumerate("qkv"):
                    part = slice(index * width, (index + 1) * width)
                    yield Slot(f"{path}.{matrix}", tower, layer, matrix, f"{path}.weight", part, module)
            else:
                matrix = _matrix(parts)
                yield Slot(f"{path}.{matrix}", tower, layer, matrix, f"{path}.weight", slice(0, rows), module)


def select_slots(
    slots: Iterable[Slot],
    matrices: Sequence[str] = MATRICES,
    towers: Sequence[str] = TOWERS,
    layers: Sequence[int] | None = None,
) -> list[Slot]:
    """Slots of the named matrices, towers and layers; negative layers count from a tower's last.

    Raises:
        ValueError: if nothing is left.
    """
    slots = list(slots)
    depth = {tower: 1 + max(s.layer for s in slots if s.tower == tower) for tower in {s.tower for s in slots}}
    chosen = [
        slot
        for slot in slots
        if slot.matrix in matrices
        and (not slot.tower or slot.tower in towers)
        and (layers is None or slot.layer in layers or slot.layer - depth[slot.tower] in layers)
    ]
    if not chosen:
        found = sorted({(s.tower or "model", s.matrix) for s in slots})
        raise ValueError(
            f"no matrix of this model matches matrices={list(matrices)}, towers={list(towers)}, layers={layers}; "
            f"it has {', '.join(f'{tower}:{matrix}' for tower, matrix in found)}"
        )
    return chosen
