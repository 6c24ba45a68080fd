"""A run's update as an adapter that PEFT loads onto the untouched model; what it cannot hold is refused.

Factors become LoRA of scaling 1: those of all tasks side by side, their rank the sum of the tasks'. Row
blocks of one weight (q, k and v of a fused attention) become one pair whose B is zero outside a block's own
columns. Token embeddings become PEFT's trainable tokens, and norms its saved modules, both with their final
values. So do attentions whose output projection moved: up to 0.21 at least, PEFT applies LoRA of ``out_proj``
in ``nn.MultiheadAttention`` twice (its pull request 3774), and a file must not depend on who reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ..delta import TaskDelta, parse_rows
from ..errors import UserError
from ..files import write_bytes, write_text
from .states import State

# Largest difference, relative to the update, of a matrix multiplied out from what the tasks added.
TOLERANCE = 1e-6

# PEFT's own word for LoRA of no module, which it otherwise takes for a mistake.
_NO_MODULES = "dummy-target-modules"

Pair = tuple[Tensor, Tensor]


# As PEFT calls them: the factors, and what they are.
FILES = ("adapter_model.safetensors", "adapter_config.json")


@dataclass
class Adapter:
    """An adapter in PEFT's format.

    Attributes:
        config: content of ``adapter_config.json``.
        tensors: content of ``adapter_model.safetensors``.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]

    def write(self, folder: Path) -> list[Path]:
        """Write both files; returns their paths."""
        files = [folder / name for name in FILES]
        write_bytes(files[0], safetensors.torch.save(self.tensors, metadata={"format": "pt"}))
        write_text(files[1], json.dumps(self.config, indent=1) + "\n")
        return files


@dataclass
class _Holders:
    """Which module of the plain model PEFT would have to wrap for every parameter that moved.

    Attributes:
        pairs: path of a linear layer or fused attention → LoRA of its ``weight`` or ``in_proj_weight``.
        saved: paths of modules to hold with all their values.
        tokens: path of an embedding → rows that moved.
        dense: parameters whose update is whole where PEFT's LoRA is low-rank.
        foreign: parameters with factors in a module of no kind that PEFT wraps.
    """

    pairs: dict[str, Pair] = field(default_factory=dict)
    saved: list[str] = field(default_factory=list)
    tokens: dict[str, Tensor] = field(default_factory=dict)
    dense: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def paths(self) -> list[str]:
        """All modules to wrap."""
        return [*self.pairs, *self.saved, *self.tokens]


def adapter_of(state: State) -> Adapter:
    """The state's whole update as one adapter for the untouched model.

    Args:
        state: from :func:`~cl_complora.finished.states.open_run`.

    Raises:
        UserError: if there is no update, or PEFT cannot hold it exactly; naming the parameters.
    """
    total = TaskDelta()
    for delta, factor in state.updates():
        total = total.plus(delta.scaled(factor))
    model = state.loaded.model
    holders = _holders(model, total)
    if holders.dense:
        raise UserError(
            f"--peft: the update of {_some(holders.dense)} is no low-rank one, "
            "and PEFT's LoRA holds no other; export without --peft"
        )
    holders.foreign += [] if holders.foreign else _never_called(state, holders.paths())
    if holders.foreign:
        raise UserError(
            f"--peft: PEFT would leave {_some(holders.foreign)} unchanged: it wraps linear layers, attentions"
            " of torch's class and embeddings, and only where the model calls them; export without --peft"
        )
    if not holders.paths():
        raise UserError("--peft: this state has no update, it is the untouched model")
    _verify(model, total, holders)
    return Adapter(_config(holders), _tensors(model, holders))


def _holders(model: nn.Module, total: TaskDelta) -> _Holders:
    holders = _Holders()
    blocks: dict[str, list[tuple[slice, Pair]]] = {}
    for key, pair in total.factors.items():
        parameter, rows = parse_rows(key)
        blocks.setdefault(parameter, []).append((rows, pair))
    for parameter, parts in blocks.items():
        _place_low_rank(model, holders, parameter, _joined(parts, len(model.get_parameter(parameter))))
    whole = {name: (None, change) for name, change in total.dense.items()} | total.rows
    for parameter, (index, change) in whole.items():
        if change.any():
            _place_whole(model, holders, parameter, index, change)
    # PEFT saves every module whose path ends in one of the names, and puts no LoRA into any of them.
    names = tuple(holders.saved)
    holders.saved = [path for path, _ in model.named_modules() if names and path.endswith(names)]
    for path in [path for path in holders.pairs if _lies_in(path, holders.saved)]:
        del holders.pairs[path]
    return holders


def _place_low_rank(model: nn.Module, holders: _Holders, parameter: str, pair: Pair) -> None:
    path, _, leaf = parameter.rpartition(".")
    parent, _, name = path.rpartition(".")
    module = model.get_submodule(path)
    if isinstance(model.get_submodule(parent), nn.MultiheadAttention) and name == "out_proj":
        holders.saved.append(parent)
    elif isinstance(module, nn.Linear | nn.MultiheadAttention) and leaf == _weight_of(module):
        holders.pairs[path] = pair
    else:
        holders.foreign.append(parameter)


def _place_whole(
    model: nn.Module,
    holders: _Holders,
    parameter: str,
    index: Tensor | None,
    change: Tensor,
) -> None:
    path = parameter.rpartition(".")[0]
    module = model.get_submodule(path)
    if isinstance(module, nn.Embedding):
        moved = change.any(1).nonzero().squeeze(1)
        holders.tokens[path] = moved if index is None else index[moved]
    elif "Norm" in type(module).__name__:
        holders.saved.append(path)
    else:
        holders.dense.append(parameter)


def _weight_of(module: nn.Module) -> str:
    return "in_proj_weight" if isinstance(module, nn.MultiheadAttention) else "weight"


def _lies_in(path: str, modules: Iterable[str]) -> bool:
    return any(path == module or path.startswith(f"{module}.") for module in modules)


def _joined(parts: Sequence[tuple[slice, Pair]], height: int) -> Pair:
    """Row blocks of a weight as one pair: A stacked, B zero but for the block's own rows and columns.

    A rank that the weight itself could not have (many tasks in a narrow layer) becomes ΔW and the identity.
    """
    a = torch.cat([a for _, (_, a) in parts]).float()
    b, start = a.new_zeros(height, len(a)), 0
    for rows, (block, _) in parts:
        b[rows, start : start + block.shape[1]] = block.float()
        start += block.shape[1]
    width = a.shape[1]
    return (b, a) if len(a) <= width else ((b.double() @ a.double()).float(), torch.eye(width))


def _never_called(state: State, paths: Iterable[str]) -> list[str]:
    """Modules that the model reads but does not call (BEiT's qkv): PEFT would wrap them to no effect."""
    model, called = state.loaded.model, set()
    modules = {path: model.get_submodule(path) for path in paths}
    hooks = [modules[path].register_forward_hook(lambda *_, path=path: called.add(path)) for path in modules]
    try:
        with torch.no_grad():
            model.encode_image(torch.zeros(1, 3, *state.loaded.pixels.size))
            model.encode_text(state.loaded.tokenizer(["a"]))
    finally:
        for hook in hooks:
            hook.remove()
    return [path for path in modules if path not in called]


def _verify(model: nn.Module, total: TaskDelta, holders: _Holders) -> None:
    """Multiply every pair out and compare it with what the tasks added to that weight.

    Raises:
        UserError: naming the first weight that differs.
    """
    low = TaskDelta({key: (b.double(), a.double()) for key, (b, a) in total.factors.items()})
    wanted = {name: torch.zeros_like(model.get_parameter(name), dtype=torch.float64) for name in _named(low)}
    low.add_to(wanted)
    for name, update in wanted.items():
        path = name.rpartition(".")[0]
        if _lies_in(path, holders.saved):
            continue
        b, a = holders.pairs[path]
        if (b.double() @ a.double() - update).norm() > TOLERANCE * update.norm():
            raise UserError(f"--peft: the adapter gives another update of {name}; please report this model")


def _named(delta: TaskDelta) -> list[str]:
    return list(dict.fromkeys(parse_rows(key)[0] for key in delta.factors))


def _tensors(model: nn.Module, holders: _Holders) -> dict[str, Tensor]:
    """Everything under the names that PEFT saves it by."""
    tensors: dict[str, Tensor] = {}
    for path, (b, a) in holders.pairs.items():
        tensors |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
        if isinstance(model.get_submodule(path), nn.MultiheadAttention):
            # PEFT gives an attention's out_proj the same rank, and would draw what it does not find.
            width = a.shape[1]
            tensors[f"{path}.base_layer.out_proj.lora_A.weight"] = torch.zeros(len(a), width)
            tensors[f"{path}.base_layer.out_proj.lora_B.weight"] = torch.zeros(width, len(a))
    for path, rows in holders.tokens.items():
        # PEFT's name says delta, but what it holds and puts in the place of the rows are values.
        values = model.get_submodule(path).weight.detach()[rows]
        tensors[f"{path}.token_adapter.trainable_tokens_delta"] = values
    for path in holders.saved:
        values = model.get_submodule(path).state_dict()
        tensors |= {f"{path}.{leaf}": value.detach().clone() for leaf, value in values.items()}
    return {f"base_model.model.{name}": value.contiguous() for name, value in tensors.items()}


def _config(holders: _Holders) -> dict[str, Any]:
    ranks = {path: len(a) for path, (_, a) in holders.pairs.items()}
    rank = max(ranks.values(), default=1)
    # Without the ^ the names of CLIP's text tower would also stand for those of its vision tower.
    other = {f"^{re.escape(path)}": own for path, own in ranks.items() if own != rank}
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": other,
        "alpha_pattern": other,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "target_modules": "|".join(re.escape(path) for path in ranks) or _NO_MODULES,
    }
    if holders.saved:
        config["modules_to_save"] = holders.saved
    if holders.tokens:
        config["trainable_token_indices"] = {path: rows.tolist() for path, rows in holders.tokens.items()}
    return config


def _some(names: Sequence[str], most: int = 3) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
