"""What the analysis says of every matrix, as one number a layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from ...clip.matrix_names import place_of

# Per layer: the mean of its matrices.
_PER_LAYER = {
    "principal_rank": "half_energy_rank",
    "principal_overlap": "principal_overlap",
    "drift": "subspace_drift",
    "effective_rank": "effective_rank",
}


def by_layer(matrices: dict[str, dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """Tag and number of every figure of every layer.

    Args:
        matrices: as in analysis/*.json.
    """
    layers = defaultdict(list)
    for name, figures in matrices.items():
        at = place_of(name)
        layers[f"{at.tower}.{'.'.join(map(str, at.blocks)) or 'outside'}"].append(figures)
    for layer, members in layers.items():
        for key, group in _PER_LAYER.items():
            yield f"{group}/{layer}", sum(figures[key] for figures in members) / len(members)
