"""Which images and texts a retrieval set holds; no pixel is loaded."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from typing import Any

from ...config.loading import Located
from ...config.scenario import RetrievalSet, Scenario
from ...errors import UserError
from ..items import Item, Source, items_at
from ..telling import counted
from .captioned import TEST


@dataclass(frozen=True)
class CaptionPlan:
    """The images of a retrieval set and what is written under them.

    Attributes:
        name: of the set.
        test: its images.
        texts: of every image, one at least.
        source: where to load from.
    """

    name: str
    test: tuple[Item, ...]
    texts: tuple[tuple[str, ...], ...]
    source: Source

    @property
    def captions(self) -> tuple[str, ...]:
        """All texts, image by image."""
        return tuple(text for own in self.texts for text in own)

    @property
    def owners(self) -> tuple[int, ...]:
        """Of every text, the place of its image."""
        return tuple(place for place, own in enumerate(self.texts) for _ in own)

    def manifest(self) -> list[dict[str, Any]]:
        """Every image as ``{"split", "texts", "key"}``, with ``"bytes"`` where it is a file."""
        return [
            {"split": TEST, "texts": list(own), **item.told()}
            for item, own in zip(self.test, self.texts, strict=True)
        ]

    def sha256(self) -> str:
        """Fingerprint of the images and their texts."""
        return hashlib.sha256(json.dumps(self.manifest(), ensure_ascii=False).encode()).hexdigest()


def drawn_evenly(items: list[Item], most: int | None, what: str = "retrieval") -> list[Item]:
    """At most so many, the same for every seed, in their order.

    Args:
        what: are drawn; each kind of set has a draw of its own.
    """
    if most is None or most >= len(items):
        return items
    drawn = random.Random(f"{what}/{len(items)}").sample(range(len(items)), most)
    return [items[place] for place in sorted(drawn)]


def plan_retrieval(
    located: Located[Scenario], entry: RetrievalSet, source: Source, seed: int, path: tuple
) -> CaptionPlan | None:
    """Choose the images: the same for every seed, in the source's order. None where the scenario measures
    validation images, so that settings are never chosen by what is reported.

    Raises:
        UserError: for fewer than two images.
    """
    if located.value.measure == "validation":
        return None
    items = drawn_evenly(items_at(located, path, source, TEST), entry.images)
    if len(items) < 2:
        problem = f"retrieval set '{entry.name}' has {counted(len(items), 'image')}; it needs two at least"
        raise UserError(located.fault((*path, "source"), problem))
    written = getattr(source, "source", source)  # also where broken pictures are left out
    return CaptionPlan(entry.name, tuple(items), tuple(written.texts(item) for item in items), source)
