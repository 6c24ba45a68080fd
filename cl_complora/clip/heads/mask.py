"""RAda: a mask on the products of image and text features, from attention over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from .head import Head, Question

# Of the three maps of attention at a time; images are independent of one another.
MOST_BYTES = 2**27

PARTS = ("from_image", "from_text", "from_product", "key", "value", "out")

_PREAMBLE = """\
both, tau, count = image[:, None] * text[None], model.logit_scale.exp(), len(text)
width = image.shape[1] // int(heads)
linear = lambda weight, x: F.linear(x, weight[:, :-1], weight[:, -1])
divided = lambda x: x.reshape(len(image), count, int(heads), width).transpose(1, 2)
queries = [
    linear(from_image, tau**0.5 * image)[:, None].expand(-1, count, -1),
    linear(from_text, tau**0.5 * text)[None].expand(len(image), -1, -1),
    linear(from_product, tau * both),
]
scores = [divided(q) @ divided(linear(key, tau * both)).mT / width**0.5 / temperature for q in queries]
maps = sum(count * one.flatten(2).softmax(-1).view_as(one) for one in scores) / 3
mixed = (maps @ divided(linear(value, tau * both))).transpose(1, 2).flatten(2)
"""


@dataclass(frozen=True, eq=False)
class MaskHead(Head):
    """Logits τ Σ_d mask_kd f_d t_kd over all classes asked for: what a class gets depends on the others.

    Attributes:
        heads, temperature: of the attention.
        from_image, from_text, from_product, key, value, out: six projections, ``D × (D + 1)``, the bias last.
    """

    heads: float
    temperature: float
    from_image: Tensor
    from_text: Tensor
    from_product: Tensor
    key: Tensor
    value: Tensor
    out: Tensor

    kind: ClassVar[str] = "mask"
    preamble: ClassVar[str] = _PREAMBLE
    formula: ClassVar[str] = "tau * ((1 + linear(out, mixed)).relu() * both).sum(-1)"

    def logits(self, question: Question) -> Tensor:
        """As in the base class."""
        if not self.known(question.names):
            return question.text_logits
        asked = question.features, question.texts, question.scale
        return masked(self.tensors(), *asked, int(self.heads), self.temperature)[1]

    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """As in the base class."""
        return {name: (None, len(self.out) + 1) for name in PARTS}


def masked(
    weights: Mapping[str, Tensor],
    features: Tensor,
    texts: Tensor,
    scale: Tensor | float,
    heads: int,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Mask ``N × K × D`` and logits ``N × K``.

    Images are taken a chunk at a time, since the maps of attention take 12 · heads · K² bytes for each.

    Args:
        weights: name in :data:`PARTS` → ``D × (D + 1)``.
        features, texts: ``N × D`` and ``K × D`` unit features.
        scale: τ.
        heads, temperature: of the attention.
    """
    chunk = max(1, MOST_BYTES // (12 * heads * len(texts) ** 2))
    products = [part[:, None] * texts[None] for part in features.split(chunk)]
    parts = [
        _mask(weights, part, texts, product, scale, heads, temperature)
        for part, product in zip(features.split(chunk), products, strict=True)
    ]
    sums = [(mask * product).sum(-1) for mask, product in zip(parts, products, strict=True)]
    return torch.cat(parts), scale * torch.cat(sums)


def _mask(
    weights: Mapping[str, Tensor],
    features: Tensor,
    texts: Tensor,
    products: Tensor,
    scale: Tensor | float,
    heads: int,
    temperature: float,
) -> Tensor:
    count, classes, width = products.shape
    root = scale**0.5

    def projected(name: str, inputs: Tensor) -> Tensor:
        return F.linear(inputs, weights[name][:, :-1], weights[name][:, -1])

    def divided(inputs: Tensor) -> Tensor:
        return inputs.reshape(count, classes, heads, width // heads).transpose(1, 2)

    queries = (
        projected("from_image", root * features)[:, None].expand(-1, classes, -1),
        projected("from_text", root * texts)[None].expand(count, -1, -1),
        projected("from_product", scale * products),
    )
    key, value = (divided(projected(name, scale * products)) for name in ("key", "value"))
    maps = []
    for query in queries:
        scores = divided(query) @ key.mT / (width // heads) ** 0.5 / temperature
        # Over the whole K × K map at once, not row by row.
        maps.append(classes * scores.flatten(2).softmax(-1).view_as(scores))
    mixed = (sum(maps) / 3 @ value).transpose(1, 2).reshape(count, classes, width)
    return torch.relu(1 + projected("out", mixed))
