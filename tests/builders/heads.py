"""Heads that are fitted in no time, and shots to fit them to."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from cl_complora.config.heads import Head
from cl_complora.engine.fitting.fitting import Shots

# A strategy whose heads read both image towers, of which one is trained.
PAIRED = """\
name: paired
adapter: {kind: lowrank, rank: 2}
head: {kind: linear-probe, with_untouched: true, c: [10.0]}
optimiser: {lr: 5e-2}
training: {steps: 4}
"""

# Setting of a kind of head → a value with which it takes no time.
_QUICK = {"steps_per_shot": 2, "hidden": 50, "views": 2, "epochs": 2, "steps": 3}


def quick_head(head: Head | None) -> list[str]:
    """Settings with which a strategy's head is fitted in no time."""
    known = () if head is None else head.model_fields_set  # others may be of another form of its kind
    settings = {key: value for key, value in _QUICK.items() if key in known}
    if head is not None and head.kind == "linear-probe":
        settings["c"] = [1.0, 10.0]
    return [f"head.{key}={value}" for key, value in settings.items()]


def clusters(
    classes: int = 3, shots: int = 8, width: int = 12, spread: float = 0.3, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unit features around unit centres, their labels, and unit texts a little off the centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(classes, width, generator=generator), dim=-1)
    labels = torch.arange(classes).repeat_interleave(shots)
    noise = spread * torch.randn(len(labels), width, generator=generator)
    texts = F.normalize(centres + 0.3 * torch.randn(classes, width, generator=generator), dim=-1)
    return F.normalize(centres[labels] + noise, dim=-1), labels, texts


def shots_from(
    features: torch.Tensor,
    labels: torch.Tensor,
    texts: torch.Tensor,
    names: tuple[str, ...] | None = None,
    validation: tuple[torch.Tensor, torch.Tensor] | None = None,
    scale: float = 10.0,
    seed: int = 0,
    seen: tuple[tuple[str, ...], torch.Tensor] | None = None,
) -> Shots:
    """What a fit is given."""
    held = validation or (torch.empty(0, features.shape[1]), torch.empty(0, dtype=torch.long))
    names = names or tuple(f"class {k}" for k in range(len(texts)))
    seen = seen or (names, texts)

    def views(count: int) -> torch.Tensor:
        return features.expand(count, -1, -1)

    return Shots(names, features, labels, *held, texts, *seen, scale, seed, views)
