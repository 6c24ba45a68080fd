"""Zero-shot accuracy of a model in pretraining: on the general set, and on spare pictures of the stream's
families."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..concepts import CONCEPTS
from ..domains import DOMAINS
from ..general import GENERAL_CLASSES, GENERAL_TEMPLATES, render_general
from .loose_captions import FAMILIES

_SPARE = 48
"""First training picture of a class that the curve is measured on; a run's shots have smaller numbers."""


def _classifier(
    model: nn.Module, tokenize: Callable, names: tuple[str, ...], prompts: tuple[str, ...]
) -> Tensor:
    device = next(model.parameters()).device
    texts = [prompt.replace("{}", name) for name in names for prompt in prompts]
    features = F.normalize(model.encode_text(tokenize(texts).to(device)), dim=-1)
    return F.normalize(features.view(len(names), len(prompts), -1).mean(1), dim=-1)


def _right(model: nn.Module, texts: Tensor, pixels: Tensor, per_class: int, normalise: Callable) -> Tensor:
    images = [
        F.normalize(model.encode_image(normalise(b.to(texts.device))), dim=-1) for b in pixels.split(256)
    ]
    wanted = torch.arange(len(texts)).repeat_interleave(per_class)
    return ((torch.cat(images) @ texts.mT).argmax(1).cpu() == wanted).float()


@torch.no_grad()
def evaluate(model: nn.Module, tokenize: Callable, normalise: Callable, per_class: int) -> dict[str, float]:
    """Top-1 over all general classes (and of its glyphs and its other classes among all), and of each family.

    Args:
        model: a CLIP in evaluation mode.
        tokenize: texts to tokens.
        normalise: uint8 pixels to what the model takes.
        per_class: general pictures of a class.
    """
    texts = _classifier(model, tokenize, GENERAL_CLASSES, GENERAL_TEMPLATES)
    right = _right(model, texts, _general_pixels(per_class), per_class, normalise)
    glyph = torch.tensor([c.kind == "glyph" for c in CONCEPTS]).repeat_interleave(per_class)
    row = {"all": right.mean(), "things": right[~glyph].mean(), "glyphs": right[glyph].mean()}
    for family in FAMILIES:
        domain = DOMAINS[family]
        texts = _classifier(model, tokenize, domain.class_names, domain.prompts)
        row[family] = _right(model, texts, _family_pixels(family), 64 - _SPARE, normalise).mean()
    return {name: float(value) for name, value in row.items()}


def _stacked(pictures: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


@lru_cache
def _general_pixels(per_class: int) -> Tensor:
    return _stacked([render_general(c, i) for c in range(len(GENERAL_CLASSES)) for i in range(per_class)])


@lru_cache
def _family_pixels(family: str) -> Tensor:
    domain = DOMAINS[family]
    return _stacked(
        [domain.render(c, i, "train") for c in range(len(domain.class_names)) for i in range(_SPARE, 64)]
    )
