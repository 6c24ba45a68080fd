"""The pictures of TensorBoard: three quarters of the time of a tiny run, and blank in most tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cl_complora.report.tensorboard import figures, observer

PICTURES = ("curves_image", "layers_image", "matrix_image", "mistakes_image", "spectra_image")


def _blank(*words: object) -> np.ndarray:
    return np.full((8, 8, 3), 255, np.uint8)


def undraw(put: Callable[[object, str, object], None]) -> None:
    """Blank pictures, set by ``put`` (``setattr`` or a monkeypatch's)."""
    for name in PICTURES:
        put(observer, name, _blank)


def draw(put: Callable[[object, str, object], None]) -> None:
    """The pictures as users get them."""
    for name in PICTURES:
        put(observer, name, getattr(figures, name))


def is_undrawn() -> bool:
    return observer.curves_image is _blank
