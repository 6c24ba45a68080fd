"""What an item and a source are; below whoever opens a kind of source, and whoever looks at its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from ..errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from ..config.loading import Located
    from ..config.scenario import Scenario
    from .images.pixels import Pixels

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Item:
    """One image of a source.

    Attributes:
        label: index into the source's class names.
        key: what the source needs to load it and what the split manifest records (a relative path, say).
        size: bytes of the file, so that a manifest notices pictures that were exchanged; None where there is
            no file.
        order: place in the source's own list, where some samplers need it.
    """

    label: int
    key: str
    size: int | None = None
    order: int = field(default=0, compare=False)

    def told(self) -> dict[str, Any]:
        """``key``, and ``bytes`` where it is a file: as split manifests have it."""
        return {"key": self.key} | ({} if self.size is None else {"bytes": self.size})


def files(items: Sequence[Item]) -> list[Item]:
    """Those that are files, and neither drawn nor part of an array."""
    return [item for item in items if item.size is not None]


class Source(Protocol):
    """What every data source answers."""

    class_names: list[str]
    prompts: list[str] | None

    @property
    def origin(self) -> str:
        """What tells this source's pictures from others of the same key and size."""

    def identities(self, items: Sequence[Item]) -> list[str]:
        """Of each picture, what tells it from all others and is the same in every source that lists it."""

    def fingerprints(self, items: Sequence[Item]) -> list[str]:
        """Of each picture, what is another one when another picture takes its place, and is the same wherever
        the folder lies or is mounted."""

    def items(self, split: str) -> list[Item]:
        """All images of ``train``, ``test`` or, where there is one, ``validation``, in a fixed order."""

    def present(self, split: str) -> tuple[list[Item], list[str]]:
        """As :meth:`items` without those that are listed and not there, and a line for each of those."""

    def stamp(self, item: Item) -> int | str | None:
        """What changes when a picture is exchanged for another of the same size; None where there is no
        file."""

    def reading(self, items: Sequence[Item]) -> Reading:
        """What, beside the files, their decoded content depends on."""

    def stored(self, item: Item) -> BinaryIO:
        """The file of a picture, open for reading; asked only of items that have a size."""

    def load(self, items: Sequence[Item], pixels: Pixels) -> Tensor:
        """``N × 3 × H × W`` uint8, after the model's deterministic resize and crop.

        Raises:
            UserError: for pictures that cannot be read; of one picture
                :class:`~cl_complora.data.telling.Passing` where that may pass.
        """


def items_at(located: Located[Scenario], path: tuple, source: Source, split: str) -> list[Item]:
    """Images of a split; what a source has against it is told with the place where the scenario names it.

    Args:
        located: the scenario.
        path: of the task or set in it.
        source: of the task or set.
        split: which.

    Raises:
        UserError: as the source does.
    """
    try:
        return source.items(split)
    except UserError as error:
        raise at_source(located, path, error) from None


def at_source(located: Located[Scenario], path: tuple, error: UserError) -> UserError:
    """The error with the place where a scenario names the source that it is of.

    Args:
        located: the scenario.
        path: of the task or set in it.
        error: without that place.
    """
    return at_key(located, (*path, "source"), error)


def at_key(located: Located[Scenario], path: tuple, error: UserError) -> UserError:
    """The error with the line of a key of a scenario."""
    first, *more = (located.fault(path, message) for message in error.messages)
    return UserError(first, tuple(more))


@dataclass(frozen=True)
class Reading:
    """How files become RGB of eight bits.

    Attributes:
        background: what transparent pictures are put on.
        values: stored values that become black and white, of pictures of more than eight bits; None where
            there are none.
    """

    background: str
    values: tuple[float, float] | None = None
