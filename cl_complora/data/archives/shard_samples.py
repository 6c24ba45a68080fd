"""What belongs together in a WebDataset shard: members that share their path up to the first dot of the base
name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from ..images.picture_files import image_suffixes, is_rubbish
from .tar import Member, members

# Last parts of extensions that hold a label, the one that counts first in front. What stands in ``.json``
# and ``.txt`` beside ``.cls`` is often about the picture and not its class.
LABELS = ("cls", "class", "json", "jsn", "txt", "text")


@dataclass
class Sample:
    """Members of one key.

    Attributes:
        key: path up to the first dot of the base name.
        members: by extension, what follows that dot in small letters (``jpg``, ``input.jpg``).
    """

    key: str
    members: dict[str, Member] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.key} ({', '.join(f'.{extension}' for extension in self.members)})"

    def picture(self, wanted: Sequence[str] | None) -> str | None:
        """Extension of the sample's picture; None where it has none.

        Args:
            wanted: the extensions that may hold it, the one that counts first in front; any picture's by
                default.

        Raises:
            ValueError: for several that nobody has chosen from.
        """
        if wanted is not None:
            return next((extension for extension in wanted if extension in self.members), None)
        return self._only(
            [one for one in self.members if f".{_last(one)}" in image_suffixes()], "pictures", "image"
        )

    def labels(self, wanted: Sequence[str] | None) -> Iterator[str]:
        """Extensions that may hold the sample's label, the one that counts first in front.

        Args:
            wanted: as for pictures.

        Raises:
            ValueError: for several of one kind (``fine.cls``, ``coarse.cls``) that nobody has chosen from,
                where that kind's turn comes.
        """
        if wanted is not None:
            yield from [extension for extension in wanted if extension in self.members][:1]
            return
        for kind in LABELS:
            only = self._only([one for one in self.members if _last(one) == kind], "labels", "label")
            if only is not None:
                yield only

    def unused(self, label: str) -> set[str]:
        """Other extensions that a label might have been read from."""
        return {one for one in self.members if one != label and _last(one) in LABELS}

    def _only(self, extensions: Sequence[str], what: str, option: str) -> str | None:
        if len(extensions) > 1:
            names = " and ".join(self.members[extension].name for extension in extensions)
            choose = f"say which one with {option}: {extensions[0]} in the source"
            raise ValueError(
                f"sample {self.key} (its name ends at the first dot) has {len(extensions)} {what}, {names};"
                f" {choose}"
            )
        return extensions[0] if extensions else None


def _last(extension: str) -> str:
    return extension.rpartition(".")[2]


def samples(file: BinaryIO) -> list[Sample]:
    """The samples of a tar archive in the order of their first members, wherever the other ones stand.

    Hidden files and what systems leave behind (``._x.jpg``, ``__MACOSX``, ``.DS_Store``), WebDataset's own
    ``__…__`` and names without a dot are passed over, as WebDataset does it.

    Raises:
        Damaged: for what is no whole archive.
        ValueError: for a member that stands there twice.
    """
    found: dict[str, Sample] = {}
    for member in members(file):
        parts = member.name.split("/")
        base, dot, extension = parts[-1].partition(".")
        if not dot or not all(part in ("", ".", "..") or _counts(part) for part in parts):
            continue
        key, extension = "/".join((*parts[:-1], base)), extension.lower()
        sample = found.setdefault(key, Sample(key))
        if extension in sample.members:
            raise ValueError(
                f"{member.name} comes after {sample.members[extension].name}, of the same name; a sample"
                " may stand there once"
            )
        sample.members[extension] = member
    return list(found.values())


def _counts(part: str) -> bool:
    return not is_rubbish(part) and not (len(part) > 4 and part.startswith("__") and part.endswith("__"))
