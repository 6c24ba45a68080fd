"""Runs for scripts and notebooks: made, and loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from . import arguments
from .run_results import Run
from .wording import callers_words, overrides_of

if TYPE_CHECKING:
    from ..progress import Progress

Settings = Mapping[str, Any] | Sequence[str] | None


def run(
    scenario: str | Path = "embedded",
    strategy: str | Path = "complora",
    seed: int = 0,
    settings: Settings = None,
    *,
    out: str | Path = "runs",
    device: str = "auto",
    fresh: bool = False,
    progress: Progress | bool | None = None,
    evaluate: bool = True,
    analysis: bool = True,
    allow_plugins: bool = False,
    variant: str = "",
    save_every: float = 60.0,
    log: Sequence[str] = (),
    elsewhere: bool = False,
) -> Run:
    """Run a scenario with a strategy, or go on with a run that was cut off, or read one that is done.

    Args:
        scenario: name of a shipped scenario (``cl-complora list scenarios``), or path of a YAML file.
        strategy: name of a shipped strategy, or path of a YAML file.
        seed: of shots, order, initialisation and augmentation.
        settings: what differs from the files: ``{"training.steps": 40}``, ``{"training": {"steps": 40}}``, or
            texts such as ``"training.steps=40"``.
        out: folder of all runs.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        fresh: set an existing run aside and start over.
        progress: True shows what happens; or an object that is told
            (:class:`cl_complora.progress.Progress`).
        evaluate: False trains without measuring.
        analysis: whether to follow what every task does to the weights and to the features of earlier ones.
        allow_plugins: whether the strategy may name Python code of your own.
        variant: keeps runs of one strategy with other settings apart: a folder of that name within the
            strategy's.
        save_every: seconds between two states within a task that an interrupted run can go on from.
        log: trackers that are told what TensorBoard is: ``wandb``, ``mlflow``, ``trackio``.
        elsewhere: go on with an interrupted run although device, GPU or versions are others.

    Returns:
        The finished run.

    Raises:
        UserError: for input that cannot work, or a run in the same folder that was made with other settings.
    """
    with callers_words():
        from ..config import load_scenario, load_strategy
        from ..config.model_names import check_model
        from ..config.overrides import refuse_what_a_run_does_not_read, split_overrides
        from ..errors import raise_all

        options: dict[str, Any] = {
            "out": arguments.path("out", out),
            "device": arguments.device("device", device),
            "fresh": arguments.flag("fresh", fresh),
            "evaluate": arguments.flag("evaluate", evaluate),
            "allow_plugins": arguments.flag("allow_plugins", allow_plugins),
            "variant": arguments.text("variant", variant),
            "analysis": arguments.flag("analysis", analysis),
            "save_every": arguments.seconds("save_every", save_every),
            "elsewhere": arguments.flag("elsewhere", elsewhere),
            "log": arguments.texts("log", log),
        }
        told = arguments.shown_by(progress)
        seed = arguments.seed("seed", seed)
        for_scenario, for_strategy = split_overrides(overrides_of(settings))
        refuse_what_a_run_does_not_read(for_scenario, for_strategy)
        located = load_scenario(arguments.named(scenario, "scenario"), for_scenario)
        chosen = load_strategy(arguments.named(strategy, "strategy"), for_strategy)
        raise_all(check_model(located))

        from ..run.stream import run as run_one

        if told is True:
            from rich.console import Console

            from ..progress import display

            with display(Console()) as shown:
                made = run_one(located, chosen, seed, progress=shown, **options)
        else:
            made = run_one(located, chosen, seed, progress=told or None, **options)
    return Run(made.results, made.folder, made.seconds, made.reused)


def load_run(folder: str | Path) -> Run:
    """A run that is there already, finished or not.

    Args:
        folder: of the run, such as ``runs/embedded/complora/seed0``.

    Raises:
        UserError: if there is no run, or it is damaged.
    """
    from ..store.folder import RunDir
    from ..store.loaded_run import load_run as load

    with callers_words():
        place = arguments.path("folder", folder)
        if not place.is_dir():
            raise UserError(
                f"{place}: there is no such folder; give a run's, such as runs/embedded/complora/seed0"
            )
        return Run(load(RunDir(place)).results, place)
