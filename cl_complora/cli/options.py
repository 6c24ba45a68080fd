"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..errors import UserError, printable

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<n>.")]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of all runs.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a setting; may be repeated."),
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="TRACKER",
        help="Log to wandb, mlflow or trackio too; may be repeated.",
    ),
]
AllowPlugins = Annotated[
    bool,
    typer.Option(
        "--allow-plugins", help="Let a strategy's YAML name a Python class of your own, and run it."
    ),
]
Elsewhere = Annotated[
    bool,
    typer.Option(
        "--elsewhere",
        help=(
            "Go on with what was begun on another device, GPU or versions: its bits differ from then on, and"
            " results.json says so."
        ),
    ),
]


def _run_folder(given: Path) -> Path:
    """The run that is meant; what is none is told before anything heavy is imported."""
    from ..store.named_runs import find_run

    return find_run(given)


Run = Annotated[
    Path,
    typer.Argument(
        help="Folder of a run (runs/embedded/complora/seed0), or its name in runs/ (embedded/complora).",
        callback=_run_folder,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]

# Of a finished run: asked for only where the files are neither where they were nor beside the run.
RunWeights = Annotated[
    str | None,
    typer.Option("--pretrained", help="The weights that the run began with, where they were moved."),
]
RunModelConfig = Annotated[
    str | None,
    typer.Option("--model-config", help="The model config that the run began with, where it was moved."),
]


def say(console: Console, line: str) -> None:
    """A line as it is: names in it are no markup and steer no terminal, and paths are not broken."""
    console.print(printable(line, len(line)), markup=False, highlight=False, soft_wrap=True)


def telling(console: Console, as_json: bool) -> Callable[[str], None]:
    """What tells what is being done: on the console, and nothing beside JSON."""

    def tell(line: str) -> None:
        console.print(printable(line, len(line)), style="dim", markup=False)

    return (lambda line: None) if as_json else tell


def seeds_of(option: str, text: str) -> tuple[int, ...]:
    """``0,1,2`` as an option gives it; none where it is empty.

    Raises:
        UserError: for anything else.
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    whole = all(part.isascii() and part.isdigit() and len(part) <= 10 for part in parts)
    seeds = tuple(map(int, parts)) if whole else ()
    if not whole or len(set(seeds)) < len(seeds) or any(seed >= 2**32 for seed in seeds):
        raise UserError(
            f"{option} {text}: must be different whole numbers separated by commas, such as 0,1,2"
        )
    return seeds
