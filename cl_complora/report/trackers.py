"""The scalars and figures of TensorBoard in W&B, MLflow or trackio too: thin exporters, one run each.

A tracker's run begins anew with every process that trains, and is given all that earlier processes measured,
as the event files are. What a tracker cannot take ends the export, not the run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import UserError, reason

# The axes: how many tasks are learned, and training steps over the whole stream.
TASKS, STEPS = "tasks_learned", "training_step"
PROJECT = "cl_complora"


class Tracker(Protocol):
    """Where numbers and figures of a run go."""

    def scalar(self, tag: str, value: float, step: int) -> None:
        """A number; ``train/…`` counts training steps, all others learned tasks."""

    def figure(self, tag: str, picture: np.ndarray, step: int) -> None:
        """A figure, ``height × width × 3`` uint8."""

    def end(self) -> None:
        """No more follows."""


class _OfWandb:
    """W&B, and trackio, whose functions are called alike."""

    def __init__(self, module: Any, name: str, config: Mapping[str, Any], folder: Path) -> None:
        self.module = module
        own = {"dir": str(folder)} if module.__name__ == "wandb" else {}
        self.run = module.init(project=PROJECT, name=name, config=dict(config), **own)
        if hasattr(self.run, "define_metric"):
            self.run.define_metric("*", step_metric=TASKS)
            self.run.define_metric("train/*", step_metric=STEPS)

    def scalar(self, tag: str, value: float, step: int) -> None:
        self.run.log({tag: value, STEPS if tag.startswith("train/") else TASKS: step})

    def figure(self, tag: str, picture: np.ndarray, step: int) -> None:
        self.run.log({tag: self.module.Image(picture), TASKS: step})

    def end(self) -> None:
        self.run.finish()


class _OfMlflow:
    """MLflow; its own settings say where (``MLFLOW_TRACKING_URI``)."""

    def __init__(self, module: Any, name: str, config: Mapping[str, Any], folder: Path) -> None:
        self.module = module
        module.set_experiment(PROJECT)
        # Longer values are refused.
        told = {_mlflow_key(key): str(value)[:500] for key, value in flat(config).items()}
        self.run = module.start_run(run_name=name)
        try:
            module.log_params(told)
        except Exception:
            module.end_run()  # or the next run of this process could not begin
            raise

    def scalar(self, tag: str, value: float, step: int) -> None:
        self.module.log_metric(tag, value, step=step)

    def figure(self, tag: str, picture: np.ndarray, step: int) -> None:
        self.module.log_image(picture, artifact_file=f"{tag}/{step:03d}.png")

    def end(self) -> None:
        self.module.end_run()


def _mlflow_key(key: str) -> str:
    """Without the signs that MLflow refuses, which the name of a set may hold."""
    return re.sub(r"[^\w\-. :/]", "_", key)


_KINDS: dict[str, Callable[..., Tracker]] = {"wandb": _OfWandb, "mlflow": _OfMlflow, "trackio": _OfWandb}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that there is not, before anything is run.

    Raises:
        UserError: naming those that there are, or what to install.
    """
    for place, name in enumerate(names):
        if name in names[:place]:
            raise UserError(f"--log {name}: stands twice; each may stand once")
        if name not in _KINDS:
            raise UserError(f"--log {name}: must be one of {', '.join(_KINDS)}")
        if find_spec(name) is None:
            raise UserError(
                f"--log {name}: the package {name} is not installed: pip install 'cl_complora[{name}]'"
            )


def open_trackers(
    names: Sequence[str], name: str, config: Mapping[str, Any], folder: Path, tell: Callable[[str], None]
) -> list[Tracker]:
    """The trackers of a run; one that cannot be opened is told and left out.

    Args:
        names: of :func:`check_trackers`.
        name: of the run, as it is shown.
        config: the resolved configuration.
        folder: where a tracker may keep files of its own.
        tell: given a sentence about what goes wrong.
    """
    found: list[Tracker] = []
    for kind in dict.fromkeys(names):
        try:
            tracker = _KINDS[kind](import_module(kind), name, config, folder)
            found.append(Bearing(kind, tracker, tell))
        except Exception as error:  # whatever it is, the run and its folder do not need it
            tell(f"warning: --log {kind}: nothing is logged there ({reason(error)})")
    return found


class Bearing:
    """A tracker whose failures are told once and end it alone.

    Args:
        kind: its name.
        tracker: what is told everything.
        tell: given the sentence.
    """

    def __init__(self, kind: str, tracker: Tracker, tell: Callable[[str], None]) -> None:
        self.kind, self.tracker, self.tell = kind, tracker, tell
        self.failed = False

    def scalar(self, tag: str, value: float, step: int) -> None:
        """As in :class:`Tracker`."""
        self._try(lambda: self.tracker.scalar(tag, float(value), int(step)))

    def figure(self, tag: str, picture: np.ndarray, step: int) -> None:
        """As in :class:`Tracker`."""
        self._try(lambda: self.tracker.figure(tag, picture, int(step)))

    def end(self) -> None:
        """As in :class:`Tracker`."""
        self._try(self.tracker.end)

    def _try(self, act: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            act()
        except Exception as error:  # a server out of reach, a full disk, a quota: the run goes on
            self.failed = True
            self.tell(f"warning: --log {self.kind}: no more is logged there ({reason(error)})")


class Everywhere:
    """Stands in for TensorBoard's writer and hands scalars and figures on to trackers.

    Args:
        writer: TensorBoard's.
        trackers: told the same.
    """

    def __init__(self, writer: Any, trackers: Sequence[Tracker]) -> None:
        self._writer, self._trackers = writer, trackers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """As of the writer."""
        for tracker in self._trackers:
            tracker.scalar(tag, value, step)
        self._writer.add_scalar(tag, value, step)

    def add_image(self, tag: str, picture: np.ndarray, step: int, **options: Any) -> None:
        """As of the writer; pictures are ``height × width × 3`` here."""
        for tracker in self._trackers:
            tracker.figure(tag, picture, step)
        self._writer.add_image(tag, picture, step, **options)

    def close(self) -> None:
        """As of the writer."""
        for tracker in self._trackers:
            tracker.end()
        self._writer.close()


def flat(config: Any, before: str = "") -> dict[str, Any]:
    """``{"training": {"steps": 3}}`` as ``{"training.steps": 3}``; lists stay whole."""
    if not isinstance(config, Mapping):
        return {before: config}
    return {
        key: value
        for name, part in config.items()
        for key, value in flat(part, f"{before}.{name}".lstrip(".")).items()
    }
