"""What a task added to one linear map, whichever way its update is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ..delta import TaskDelta

if TYPE_CHECKING:  # opening a model costs seconds, and a comparison's stored figures need none
    from ..clip.slots import Slot


def change_of_parameter(delta: TaskDelta, slot: Slot) -> Tensor | None:
    """ΔW of a map whose parameter is stored whole or by the rows that moved, as part of it (q, k and v are
    one weight); None where it is not stored so."""
    if slot.parameter in delta.dense:
        return delta.dense[slot.parameter][slot.rows]
    if slot.parameter not in delta.rows:
        return None
    index, moved = delta.rows[slot.parameter]
    inside = (index >= slot.rows.start) & (index < slot.rows.stop)
    change = moved.new_zeros(slot.rows.stop - slot.rows.start, moved.shape[1])
    change[index[inside] - slot.rows.start] = moved[inside]
    return change
