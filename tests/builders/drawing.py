"""The pictures of TensorBoard: three quarters of the time of a tiny run, and blank in most tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cl_complora.report.tensorboard import figures

_NAMES = ("curves_image", "layers_image", "matrix_image", "mistakes_image", "spectra_image")
PICTURES = {name: getattr(figures, name) for name in _NAMES}


def _blank(*words: object) -> np.ndarray:
    return np.full((8, 8, 3), 255, np.uint8)


def undraw(put: Callable[[object, str, object], None]) -> None:
    """Blank pictures, set by ``put`` (``setattr`` or a monkeypatch's)."""
    for name in PICTURES:
        put(figures, name, _blank)


def draw(put: Callable[[object, str, object], None]) -> None:
    """The pictures as users get them."""
    for name, drawn in PICTURES.items():
        put(figures, name, drawn)


def is_undrawn() -> bool:
    return figures.curves_image is _blank
