"""Real handwriting: the digits of thirteen people that scikit-learn ships, enlarged.

The 1,797 pictures are dealt out once and for all, half of each class to training and half to testing.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from ..canvas import IMAGE_SIZE
from .domain import SPLITS, Domain, check_request

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DEALING_SEED = 1797
_BLACK = 12  # Not quite, as on a screen.

# Half of the rarest class (the eight, 174 pictures). Written down, so that nobody has to load the data to
# learn how much there is of it.
POOL = 87


@cache
def source_indices() -> dict[str, np.ndarray]:
    """Says which of scikit-learn's pictures each split shows.

    Returns:
        For each split an array [10, 87] of positions in ``sklearn.datasets.load_digits().images``.
    """
    from sklearn.datasets import load_digits

    labels = load_digits().target
    rng = np.random.default_rng(_DEALING_SEED)
    dealt = [rng.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    return {
        split: np.stack([of_digit[k * POOL : (k + 1) * POOL] for of_digit in dealt])
        for k, split in enumerate(SPLITS)
    }


@cache
def _scans() -> np.ndarray:
    from sklearn.datasets import load_digits

    return (load_digits().images * (255 / 16)).astype(np.uint8)


def _render(class_index: int, sample_index: int, split: str) -> np.ndarray:
    check_request(len(_WORDS), class_index, sample_index, split)
    if sample_index >= POOL:
        raise IndexError(f"there are {POOL} pictures per digit and split; asked for number {sample_index}")
    # Ink may touch the edge of the scan; the blank border keeps the enlargement from cutting it off.
    scan = np.pad(_scans()[source_indices()[split][class_index, sample_index]], 1)
    ink = np.asarray(Image.fromarray(scan).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))
    return np.repeat(np.maximum(ink, _BLACK)[..., None], 3, axis=2)


DOMAIN = Domain(
    "digits",
    "Handwritten digits",
    tuple(f"the handwritten digit {word}" for word in _WORDS),
    ("a photo of {}", "a picture of {}", "an image of {}", "{}"),
    _render,
    POOL,
)
