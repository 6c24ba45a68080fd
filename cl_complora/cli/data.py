"""cl-complora data: is everything there, and what is kept decoded."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import UserError, raise_all
from .help_pages import HelpfulCommand, HelpfulGroup
from .output import say_line

data = typer.Typer(
    cls=HelpfulGroup,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Check a scenario's pictures; look after the cache of decoded ones.",
)


@data.command(cls=HelpfulCommand)
def check(
    scenarios: Annotated[list[str], typer.Argument(help="Scenario files or names.")],
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed whose draw is looked at; by default all those of the scenario."),
    ] = None,
) -> None:
    """Open every picture that a scenario would use, without model or network, and tell which cannot be
    read."""
    from ..data.checks.verify import verify
    from ..data.images.broken import unreadable

    faults: list[str] = []
    for name in scenarios:
        try:
            report = verify(name, seed)
        except UserError as error:
            faults += error.messages
            continue
        for line in report.lines:
            say_line(line)
        faults += report.faults
    if any(map(unreadable, faults)):
        hint = "broken: skip in a scenario, or --set broken=skip of a run, leaves out what cannot be read"
        say_line(f"note: {hint}", err=True)
    raise_all(faults)


@data.command(cls=HelpfulCommand)
def prepare(scenario: Annotated[str, typer.Argument(help="Scenario file or name.")]) -> None:
    """Download what a scenario needs and torchvision still can; tell where to get the rest."""
    from ..config import load_scenario
    from ..data.checks.verify import named_sets
    from ..data.registry import check, fetch, root_of

    located = load_scenario(scenario)
    faults: list[str] = []
    for source in named_sets(located):
        root = root_of(source, located.folder)
        if not check(source.name, root):
            typer.echo(f"{source.name}: complete in {root}")
            continue
        typer.echo(f"{source.name}: fetching into {root}")
        try:
            fetch(source.name, root)
        except UserError as error:
            faults += error.messages
    raise_all(faults)


@data.command(cls=HelpfulCommand)
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete all that is kept.")] = False,
) -> None:
    """Where decoded test images and the answers of untouched models are kept, and how large that is."""
    from ..data.images import cache as kept

    folder = kept.cache_folder()
    if folder is None:
        typer.echo("off (CL_COMPLORA_CACHE=off, or no home folder): images are decoded anew by every run")
        return
    if clear:
        typer.echo(f"{kept.clear()} files deleted")
    files, size = kept.usage()
    typer.echo(f"{folder.parent}: {files} files, {size / 1e6:.1f} MB")
