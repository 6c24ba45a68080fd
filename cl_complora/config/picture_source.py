"""What every source of pictures may say of how they are read."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from .base import EachOnce, Section, Text, refused
from .yaml_lines import shown

ClassNames = Annotated[list[Text], Field(min_length=1), EachOnce]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _a_range(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 32:
        return value
    pair = isinstance(value, list) and len(value) == 2 and all(map(_number, value))
    if value is None or (pair and value[0] < value[1]):
        return value
    allowed = "must be [low, high] with low < high, or a number of bits from 1 to 32 (12 for [0, 4095])"
    raise refused(f"{allowed}, got {shown(value)}")


def _a_colour(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 3:
        if all(isinstance(part, int) and not isinstance(part, bool) and 0 <= part <= 255 for part in value):
            return value
    elif isinstance(value, str):
        from PIL import ImageColor

        try:
            if len(ImageColor.getrgb(value)) == 3:
                return value
        except ValueError:
            pass
    allowed = 'must be the name of a colour (white), "#rrggbb" in quotes, or [r, g, b] from 0 to 255'
    told = "got nothing: what follows # is a comment" if value is None else f"got {shown(value)}"
    raise refused(f"{allowed}, {told}")


class PictureSource(Section):
    """What every source of picture files may say of how they are read."""

    range: Annotated[int | list[float] | None, BeforeValidator(_a_range)] = None
    """``[low, high]``, the stored values that become black and white, or a number of bits, for pictures of
    more than eight bits; by default the bits that the training pictures use."""
    background: Annotated[str | list[int], BeforeValidator(_a_colour)] = "white"
    """What transparent pictures are put on: a colour's name, ``"#rrggbb"`` or ``[r, g, b]``."""
