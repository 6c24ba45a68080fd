"""Slots: the matrices of a model that can carry a low-rank update, found by what they are.

``open_slots`` replaces attention modules and linear layers by their adaptable hosts once (same parameters,
same state_dict keys, same outputs) and lists every matrix with its tower, layer and kind. Works on
open_clip's own towers, on timm towers (``attn.qkv``, ``attn.proj``) and on any other module with linear
layers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..delta import row_key
from ..lowrank import AdaptedLinear, Adapters
from .attention import SplitAttention, is_fused_attention, is_plain_linear
from .matrix_names import kind_of

MATRICES = ("q", "k", "v", "o", "fc", "proj", "other")
TOWERS = ("vision", "text")

_NUMBERED = re.compile(r"(.*_)?\d+")


@dataclass(frozen=True)
class Slot:
    """One adaptable matrix.

    Attributes:
        name: ``<module path>.<matrix>``, unique in the model.
        tower: ``vision``, ``text``, or ``""`` for a model without towers.
        layer: index of its block among the blocks of its tower, −1 outside blocks (heads, pools).
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
        """Key of the matrix in a :class:`~cl_complora.delta.TaskDelta`."""
        return row_key(self.parameter, self.rows)

    @property
    def adapters(self) -> Adapters:
        """Where a low-rank block for this matrix is attached."""
        return self.host.adapters


def open_slots(model: nn.Module) -> list[Slot]:
    """Make every linear map of ``model`` adaptable, in place, and list them (idempotent).

    Left as they are: maps whose weight is read by the module around them instead of being called (a factor
    there would have no effect), and CoCa's caption decoder, which has no part in classification.

    Args:
        model: an open_clip model, a wrapper around one, or any module.

    Returns:
        The slots in module order; fused q, k, v weights give one slot per matrix.
    """
    has_vision = any(_is_vision(path.split(".")) for path, _ in model.named_modules())
    for module in model.modules():
        if getattr(module, "qkv_bias_separate", None) is False:
            module.qkv_bias_separate = (
                True  # timm's switch in BEiT, EVA and Swin v2: call qkv, then add the biases
            )
    _replace_all(model, has_vision, lambda parent, leaf, module: is_fused_attention(module), SplitAttention)
    _replace_all(
        model,
        has_vision,
        lambda parent, leaf, module: is_plain_linear(module) and not _is_read(parent, leaf),
        AdaptedLinear,
    )
    return list(_slots(model, has_vision))


def _is_vision(path: Sequence[str]) -> bool:
    return "visual" in path or "vision_model" in path


def _replace_all(
    model: nn.Module,
    has_vision: bool,
    chosen: Callable[[nn.Module, str, nn.Module], bool],
    host: Callable[[nn.Module], nn.Module],
) -> None:
    hosts: dict[int, nn.Module] = {}  # a module that sits in two places is one module afterwards as well
    for path, module in list(model.named_modules(remove_duplicate=False)):
        parent, _, leaf = path.rpartition(".")
        if not path or (has_vision and "text_decoder" in path.split(".")):
            continue
        around = model.get_submodule(parent)
        if id(module) not in hosts and chosen(around, leaf, module):
            hosts[id(module)] = host(module).train(module.training)
        if id(module) in hosts:
            setattr(around, leaf, hosts[id(module)])


def _is_read(parent: nn.Module, leaf: str) -> bool:
    """Whether ``parent`` reads the weight of this part in functional code rather than calling the part."""
    if hasattr(
        parent, "in_proj_weight"
    ):  # an attention that stays fused (cosine, another width of k and v, …)
        return not isinstance(parent, SplitAttention)
    if hasattr(parent, "q_proj") and hasattr(parent, "c_proj"):  # the attention pool of CLIP's ResNets
        return True
    # Those of timm before it had the switch above.
    has_own_bias = isinstance(getattr(parent, "q_bias", None), nn.Parameter)
    return leaf == "qkv" and has_own_bias and not hasattr(parent, "qkv_bias_separate")


def _slots(model: nn.Module, has_vision: bool) -> Iterator[Slot]:
    hosts = {path: m for path, m in model.named_modules() if isinstance(m, SplitAttention | AdaptedLinear)}
    tower = {
        path: "vision" if _is_vision(path.split(".")) else "text" if has_vision else "" for path in hosts
    }
    layers: dict[str, int] = {}
    for name in set(tower.values()):
        layers |= _layers([path for path in hosts if tower[path] == name])
    for path, host in hosts.items():
        parts = path.split(".")
        place = (tower[path], layers[path])
        if isinstance(host, SplitAttention):
            for matrix in "qkv":
                yield Slot(
                    f"{path}.{matrix}", *place, matrix, f"{path}.in_proj_weight", host.rows(matrix), host
                )
            continue
        rows, width = host.out_features, host.in_features
        if parts[-1] in ("qkv", "kv") and rows == len(parts[-1]) * width:
            matrices = {matrix: slice(i * width, (i + 1) * width) for i, matrix in enumerate(parts[-1])}
        else:
            parent = model.get_submodule(".".join(parts[:-1]))
            matrices = {_matrix(parts, hasattr(parent, "num_heads"), layers[path]): slice(0, rows)}
        for matrix, part in matrices.items():
            yield Slot(f"{path}.{matrix}", *place, matrix, f"{path}.weight", part, host)


def _layers(paths: Sequence[str]) -> dict[str, int]:
    """Index of the block that every host of a tower sits in, −1 outside blocks.

    A block is the innermost numbered part of a path with several hosts in it (``resblocks.3``, ``blocks.7``,
    ``stages.2.1.transformer.0``). A numbered part with blocks inside is a stage: what it holds itself (Swin's
    patch merging) is outside blocks. In a plain sequence of layers every layer is its own block.
    """
    around = {path: _numbered(path) for path in paths}
    size = Counter(part for parts in around.values() for part in parts)
    block = {
        path: next((p for p in parts if size[p] > 1), next(iter(parts), None))
        for path, parts in around.items()
    }
    names = list(dict.fromkeys(name for name in block.values() if name is not None))
    names = [name for name in names if not any(other.startswith(f"{name}.") for other in names)]
    return {path: names.index(name) if name in names else -1 for path, name in block.items()}


def _numbered(path: str) -> list[str]:
    """Numbered parts that hold the module at ``path``, innermost first; the module itself where there is
    none."""
    parts = path.split(".")
    found = [".".join(parts[: end + 1]) for end, part in enumerate(parts) if _NUMBERED.fullmatch(part)]
    return [name for name in reversed(found) if name != path] or found


def _matrix(path: Sequence[str], in_attention: bool, layer: int) -> str:
    kind, parent = kind_of(path[-1], in_attention), path[-2] if len(path) > 1 else ""
    if kind in ("fc", "proj") and ("head" in path or (layer < 0 and parent != "mlp")):
        return "other"  # heads have their own fc and proj, which are no part of a block's MLP
    return kind or "other"


def check_names(matrices: Sequence[str], towers: Sequence[str]) -> None:
    """Refuse names of no matrix and no tower, which would be left out without a word.

    Raises:
        ValueError: naming the first.
    """
    for setting, names, known in (("matrices", matrices, MATRICES), ("towers", towers, TOWERS)):
        unknown = next((name for name in names if name not in known), None)
        if unknown is not None:
            raise ValueError(f"{setting}: must be of {', '.join(known)}, got {unknown!r}")


def select_slots(
    slots: Iterable[Slot],
    matrices: Sequence[str] = MATRICES,
    towers: Sequence[str] = TOWERS,
    layers: Sequence[int] | None = None,
) -> list[Slot]:
    """Slots of the named matrices, towers and layers.

    Args:
        slots: all of a model.
        matrices, towers: which; slots of a model without towers always pass the latter.
        layers: block numbers, negative ones from a tower's last; None for all, and only then what is outside
            blocks.

    Raises:
        ValueError: if nothing is left, and for a block that no tower has.
    """
    slots = list(slots)
    depth = {tower: 1 + max(s.layer for s in slots if s.tower == tower) for tower in {s.tower for s in slots}}

    asked = {tower: blocks for tower, blocks in depth.items() if not tower or tower in towers}
    beyond = [layer for layer in layers or () if not any(-n <= layer < n for n in asked.values())]
    if beyond and asked:
        has = ", ".join(f"{tower or 'the model'} {blocks}" for tower, blocks in sorted(asked.items()))
        raise ValueError(
            f"layers={list(layers or ())}: no tower has {', '.join(map(str, beyond))}; blocks: {has}"
        )

    def in_layers(slot: Slot) -> bool:
        from_last = slot.layer - depth[slot.tower]
        return layers is None or (slot.layer >= 0 and (slot.layer in layers or from_last in layers))

    chosen = [
        slot
        for slot in slots
        if slot.matrix in matrices and (not slot.tower or slot.tower in towers) and in_layers(slot)
    ]
    if not chosen:
        found = sorted({(s.tower or "model", s.matrix) for s in slots})
        raise ValueError(
            f"no matrix of this model matches matrices={list(matrices)}, towers={list(towers)},"
            f" layers={layers}; it has {', '.join(f'{tower}:{matrix}' for tower, matrix in found)}"
        )
    return chosen
