"""Names of a model's matrices read as tower, layer and kind, whatever open_clip or timm called them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

KINDS = ("q", "k", "v", "qkv", "o", "fc", "proj")
_OUTSIDE = "–"

_ROWS = re.compile(r"\[(\d+):(\d+)\]$")
_STAGE = re.compile(r"(?<![^.])layer(\d+)\.")
_MLP_IN = {"c_fc", "fc1", "fc1_g", "fc1_x", "lin1", "intermediate", "w0", "w1", "fc"}
_MLP_OUT = {"c_proj", "fc2", "lin2", "w2"}
_OUT = {"out_proj", "o_proj"}
_INTO_ATTENTION = {"q_proj", "k_proj", "v_proj"}


@dataclass(frozen=True, order=True)
class Place:
    """Where a matrix stands.

    Attributes:
        tower: ``vision`` or ``text``.
        blocks: numbers of the blocks around it, the outermost first; empty outside blocks.
        kind: one of :data:`KINDS`, or its own name.
    """

    tower: str
    blocks: tuple[int, ...]
    kind: str

    @property
    def layer(self) -> str:
        """``3``, or ``2.4`` for block 4 of stage 2."""
        return ".".join(map(str, self.blocks)) or _OUTSIDE


def place_of(name: str) -> Place:
    """Where a matrix stands, from its state_dict name (``….in_proj_weight[0:64]``) or its slot's
    (``….attn.q``)."""
    rows = _ROWS.search(name)
    parts = numbered(_ROWS.sub("", name)).split(".")
    tower = "vision" if "visual" in parts or "vision_model" in parts else "text"
    if parts[-1] == "weight" and len(parts) > 1:
        parts.pop()
    elif parts[-1] in (*KINDS, "other") and len(parts) > 2:
        return Place(tower, _blocks(parts[:-2]), parts[-1] if parts[-1] != "other" else parts[-2])
    return Place(tower, _blocks(parts[:-1]), _kind(parts, rows))


def numbered(name: str) -> str:
    """A name with the stages of a ResNet (``layer1.0.conv1``) as numbers, as other towers have them."""
    return _STAGE.sub(r"\1.", name)


def _blocks(parts: Iterable[str]) -> tuple[int, ...]:
    return tuple(int(part) for part in parts if part.isdecimal() and part.isascii())


def kind_of(leaf: str, in_attention: bool) -> str | None:
    """What a matrix of a block is by the name of its module: q, k, v, o, fc or proj; None for another.

    Args:
        leaf: the last part of the module's path.
        in_attention: whether the module around it is an attention, where ``q`` and ``proj`` mean its own.
    """
    if leaf in _OUT or (leaf == "proj" and in_attention):
        return "o"
    if leaf in _INTO_ATTENTION or (leaf in ("q", "k", "v") and in_attention):
        return leaf[0]
    return "fc" if leaf in _MLP_IN else "proj" if leaf in _MLP_OUT else None


def _kind(parts: list[str], rows: re.Match | None) -> str:
    leaf, parent = parts[-1], parts[-2] if len(parts) > 1 else ""
    if leaf in ("in_proj_weight", "qkv", "kv"):
        return _third(rows, "kv" if leaf == "kv" else "qkv")
    named = f"{parent}.{leaf}" if leaf.isdecimal() and parent else leaf
    return kind_of(leaf, "attn" in parent) or named


def _third(rows: re.Match | None, letters: str) -> str:
    """The letter of a block of rows of a fused weight; all of them for the whole."""
    if rows is None:
        return letters
    start, stop = int(rows[1]), int(rows[2])
    index = start // (stop - start) if stop > start and start % (stop - start) == 0 else len(letters)
    return letters[index] if index < len(letters) else letters


def kinds_in_order(kinds: Iterable[str]) -> tuple[str, ...]:
    """The known kinds in the order of a block, then the others by name."""
    found = set(kinds)
    return (*(kind for kind in KINDS if kind in found), *sorted(found - set(KINDS)))
