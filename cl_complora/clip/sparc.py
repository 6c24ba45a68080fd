"""SPARC's scores for images with several labels (Miller et al., CVPR 2025): nothing is trained.

Transductive: what an image gets depends on all the other images that are scored with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sparc_scores(
    single: Tensor, plain: Tensor, compound: Tensor, prompts_of: Sequence[Sequence[int]]
) -> Tensor:
    """½ M w + ½ S̃ for every class, ``N × K``; S̃ alone of a class that no compound prompt names.

    M holds an image's normalised scores of the class's compound prompts, ascending, and S̃ behind them; w is
    the first principal direction of M over the images, with a mean of at least 0 and Σ|w| = 1.

    Args:
        single: ``N × K`` cosines with the classes' prompts.
        plain: ``N × K`` cosines with the class names alone.
        compound: ``N × P`` cosines with the compound prompts.
        prompts_of: of every class, the places of its prompts among the compound ones; fewer than N − 1.

    Raises:
        ValueError: where there are too few images for a class's prompts.
    """
    scores = normalised(single)
    if compound.shape[1]:
        together = compound_normalised(compound, plain)
        scores = scores.clone()
        for column, chosen in enumerate(prompts_of):
            if len(chosen):
                if len(single) <= len(chosen) + 1:
                    raise ValueError(
                        f"{len(chosen)} compound prompts of a class need more than {len(single)} images"
                    )
                ranked = together[:, list(chosen)].sort(dim=1).values
                matrix = torch.cat([ranked, scores[:, column : column + 1]], dim=1)
                scores[:, column] = 0.5 * matrix @ direction(matrix) + 0.5 * scores[:, column]
    return scores


def normalised(single: Tensor) -> Tensor:
    """S̃: z-scores of every image over the classes, then of every class over the images; ``N × K`` in 64
    bits."""
    return _over_images(_over(single.double(), single.double()))


def compound_normalised(compound: Tensor, plain: Tensor) -> Tensor:
    """C̃, ``N × P``: every image by mean and deviation of its scores of the *plain class names*, then every
    prompt over the images."""
    return _over_images(_over(compound.double(), plain.double()))


def direction(matrix: Tensor) -> Tensor:
    """First principal direction of the rows of ``N × M``, with a mean of at least 0 and Σ|w| = 1."""
    centred = matrix - matrix.mean(0)
    first = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    if first.mean() < 0:
        first = -first
    return first / first.abs().sum()


def _over(scores: Tensor, reference: Tensor) -> Tensor:
    """Rows by the mean and deviation of another matrix's rows."""
    return (scores - reference.mean(1, keepdim=True)) / _spread(reference, 1)


def _over_images(scores: Tensor) -> Tensor:
    return (scores - scores.mean(0)) / _spread(scores, 0)


def _spread(scores: Tensor, dim: int) -> Tensor:
    """Standard deviation (of a sample); of what is all the same, so little that 0 stays 0."""
    return scores.std(dim, keepdim=True).clamp_min(torch.finfo(scores.dtype).eps)
