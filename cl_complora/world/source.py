"""The embedded world as a data source: its general zero-shot set and its few-shot domains."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.sources import CAPTIONED, CAPTIONS, TOGETHER
from ..data.images.pictures import Pictures
from ..data.items import Item
from ..errors import UserError
from .drawing_code import drawing_code

if TYPE_CHECKING:
    from torch import Tensor

    from ..config.sources import WorldCaptionsSource, WorldSource, WorldTaskSource, WorldTogetherSource
    from ..data.images.pixels import Pixels

GENERAL = "general"

# Images that a class has in each split where the drawing code could go on for ever; the first ones are the
# easiest to name in a manifest, and any of them can be drawn alone.
POOL = {"train": 64, "test": 40}
# The general set has one way of drawing: its training pictures (a reference set, validation) have other
# numbers.
_TRAIN_FROM = 1_000_000


def domain_names() -> list[str]:
    """Names of the zero-shot set and all few-shot domains."""
    from .domains import DOMAINS

    return [GENERAL, *DOMAINS]


class World(Pictures):
    """Images drawn on demand; every one is a function of (domain, class, split, number) alone."""

    def __init__(self, domain: str) -> None:
        from .domains import DOMAINS
        from .general import GENERAL_CLASSES, GENERAL_TEMPLATES

        self.domain = domain
        if domain == GENERAL:
            self.class_names, self.prompts = list(GENERAL_CLASSES), list(GENERAL_TEMPLATES)
            self.pool = POOL
        elif domain in DOMAINS:
            chosen = DOMAINS[domain]
            self.class_names, self.prompts = list(chosen.class_names), list(chosen.prompts)
            self.pool = {split: min(size, chosen.pool or size) for split, size in POOL.items()}
        else:
            close = difflib.get_close_matches(domain, domain_names(), n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise UserError(f"no domain named {domain!r}; {hint}there are {', '.join(domain_names())}")

    @property
    def family(self) -> str:
        """The domain."""
        return f"World {self.domain}"

    def items(self, split: str) -> list[Item]:
        """Every image of a split."""
        return [
            Item(label, f"{split}/{label}/{number}")
            for label in range(len(self.class_names))
            for number in range(self.pool.get(split, 0))
        ]

    def stamp(self, item: Item) -> str:
        """The drawing code, so that no cache outlives a change of it."""
        return drawing_code()

    def picture(self, item: Item, pixels: Pixels) -> Tensor:
        """Draw one image; a model of another input size gets it resized like any file."""
        split, label, number = item.key.split("/")
        return pixels.drawn(self._draw(int(label), int(number), split))

    def _draw(self, label: int, number: int, split: str):
        if self.domain == GENERAL:
            from .general import render_general

            return render_general(label, number + (_TRAIN_FROM if split == "train" else 0))
        from .domains import DOMAINS

        return DOMAINS[self.domain].render(label, number, split)


def open_world(
    config: WorldSource | WorldCaptionsSource | WorldTaskSource | WorldTogetherSource, folder: Path
) -> Pictures:
    """The domain that a configuration names, or a set beside them; ``folder`` has no part in it.

    Raises:
        UserError: for a domain that there is not.
    """
    if config.domain in CAPTIONED:
        from .captioned_set import WorldCaptions

        return WorldCaptions(config.domain)
    if config.domain == TOGETHER:
        from .together_set import WorldTogether

        return WorldTogether()
    return World(config.domain)


def domain_rows() -> list[tuple[str, str]]:
    """(name, one line) of everything that ``source: {kind: world, domain: …}`` can name."""
    from .domains import DOMAINS
    from .general import GENERAL_CLASSES

    rows = [
        (GENERAL, f"world: zero-shot set over all {len(GENERAL_CLASSES)} pretraining concepts"),
        (CAPTIONS, "world: pictures with captions of the same concepts, for retrieval:"),
        ("negatives", "world: photographic negatives of such pictures with their captions, for a task:"),
        (TOGETHER, "world: pictures of two or three objects each, for multi_label:"),
    ]
    return rows + [(name, f"world: {d.title} ({len(d.class_names)} classes)") for name, d in DOMAINS.items()]
