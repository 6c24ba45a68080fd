"""How far the features of a task's images have drifted since the model had just learned it."""

from __future__ import annotations

import torch
from torch import Tensor

# Images of a task that drift is measured on, spread over the task.
SAMPLE = 256


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of two sets of features of the same images; 1 where they differ by a
    rotation.

    ‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) of the column-centred ``n × p`` and ``n × q`` matrices (Kornblith et al.,
    ICML 2019). NaN where one of them does not vary.
    """
    x, y = (features.double() - features.double().mean(0) for features in (x, y))
    scale = torch.linalg.matrix_norm(x.mT @ x) * torch.linalg.matrix_norm(y.mT @ y)
    return float(torch.linalg.matrix_norm(y.mT @ x) ** 2 / scale) if float(scale) else float("nan")


def spread(images: int, most: int = SAMPLE) -> Tensor:
    """At most ``most`` places among ``images``, evenly spread and the same every time."""
    count = min(images, most)
    return torch.arange(count) * images // max(1, count)
