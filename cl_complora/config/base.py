"""What all sections of a configuration file share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

# Far beyond any sensible setting, and far below what overflows in torch and numpy.
MOST = 1_000_000_000


class Section(BaseModel):
    """A mapping in a YAML file: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def refused(
    message: str, *at: str | int, because: Sequence[tuple[str | int, ...]] = ()
) -> PydanticCustomError:
    """What a validator raises: the fault is told at the line of the guilty key and not of the section around
    it.

    Args:
        message: what is wrong and what is allowed.
        at: steps from the validated value to the guilty key.
        because: paths, from the validated value, of other keys that the fault depends on.
    """
    return PydanticCustomError(
        "refused", "{message}", {"message": message, "at": at, "because": tuple(because)}
    )


def _each_once(values: list) -> list:
    seen = set()
    for index, value in enumerate(values):
        if value in seen:
            raise refused(f"{value!r} stands twice in this list; each may stand once", index)
        seen.add(value)
    return values


EachOnce = AfterValidator(_each_once)

# Pattern of a text → what the message about one that does not fit says that it must do.
FORMS: dict[str, str] = {}


def form(pattern: str, must: str, **bounds: int) -> StringConstraints:
    """What a text has to be like.

    Args:
        pattern: that it must fit.
        must: the same in words, after "must".
        bounds: of its length.
    """
    FORMS[pattern] = must
    return StringConstraints(pattern=pattern, **bounds)


# Names become folder names and TensorBoard tags, so they stay within what both carry.
Name = Annotated[
    str,
    form(
        r"^[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}$",
        "have 1 to 64 letters, digits, spaces or . _ + - and start with a letter or digit",
    ),
]
Text = Annotated[str, StringConstraints(min_length=1)]
# No context of a text tower is as long.
Template = Annotated[
    str, form(r"^[^{}]*\{\}[^{}]*$", "hold {} once, where the class name goes", max_length=1000)
]


def _a_path(value: str) -> str:
    if "\0" in value:
        raise refused("no file or folder can have this name, which holds a zero byte")
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise refused(f"the home folder that ~ stands for is not known, got {value!r}") from None
    return value


# Of a file or folder; a relative one starts from the folder of the YAML file.
PathText = Annotated[Text, AfterValidator(_a_path)]
Count = Annotated[int, Field(ge=1, le=MOST)]
CountOrZero = Annotated[int, Field(ge=0, le=MOST)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def idle_keys(keys: list[str]) -> str:
    """``a has no effect (nor have b, c)``."""
    also = f" (nor {'has' if len(keys) == 2 else 'have'} {', '.join(keys[1:])})" if len(keys) > 1 else ""
    return f"has no effect{also}"
