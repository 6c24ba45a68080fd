"""What most tests do without: the pictures of TensorBoard, the drawings of a run's page, and who watches a
run. They are three quarters of the time of a tiny run, nearly all of that of its page, and a seventh of a run
without pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
from markupsafe import Markup

from cl_complora.report.run import figures as of_pages
from cl_complora.report.svg import plain
from cl_complora.report.tensorboard import figures as of_boards
from cl_complora.run import stream

# Sets an attribute: ``setattr`` or a monkeypatch's.
Put = Callable[[object, str, object], None]


class _Nothing:
    """A figure that draws nothing: whatever it is asked for is nothing too."""

    def __getattr__(self, name: str) -> _Nothing:
        return self

    def __call__(self, *words: object, **options: object) -> _Nothing:
        return self

    def __getitem__(self, key: object) -> _Nothing:
        return self

    def __iter__(self) -> Iterator[_Nothing]:
        return iter(())


def _blank(*words: object) -> np.ndarray:
    return np.full((8, 8, 3), 255, np.uint8)


@contextmanager
def _undrawn(width: float, height: float) -> Iterator[_Nothing]:
    yield _Nothing()


def _words(figure: _Nothing, prefix: str, title: str, description: str) -> Markup:
    """What a drawing says to those who cannot see it, which pages are read for."""
    return Markup(
        '<svg role="img" aria-labelledby="svg-{0}-title svg-{0}-desc"><title id="svg-{0}-title">{1}</title>'
        '<desc id="svg-{0}-desc">{2}</desc></svg>'
    ).format(prefix, plain(title), plain(description))


def _display(inputs, learner, data, folder, progress, analysis, log=()) -> list:
    """The display alone, but where a tracker is asked for, which is told what TensorBoard is."""
    real = _REAL[stream, "_observers"]
    watching = real(inputs, learner, data, folder, progress, bool(analysis and log), log)
    return watching if log else watching[:1]


_NAMES = ("curves_image", "layers_image", "matrix_image", "mistakes_image", "spectra_image")
# Kind → (module, name) → what stands there instead.
_STAND_INS: dict[str, dict[tuple[ModuleType, str], object]] = {
    "boards": {(of_boards, name): _blank for name in _NAMES},
    "pages": {(of_pages, "drawing"): _undrawn, (of_pages, "inline"): _words},
    "watching": {(stream, "_observers"): _display},
}
_REAL = {place: getattr(*place) for kind in _STAND_INS.values() for place in kind}
KINDS = tuple(_STAND_INS)


def leave_out(put: Put, *kinds: str) -> None:
    """Do without these from now on."""
    for kind in kinds:
        for (module, name), stand_in in _STAND_INS[kind].items():
            put(module, name, stand_in)


def put_back(put: Put, *kinds: str) -> None:
    """These as users get them."""
    for kind in kinds:
        for module, name in _STAND_INS[kind]:
            put(module, name, _REAL[module, name])


def left_out() -> tuple[str, ...]:
    """The kinds that this process does without now."""
    return tuple(
        kind
        for kind, places in _STAND_INS.items()
        if all(getattr(*place) is stand_in for place, stand_in in places.items())
    )
