"""cl-complora init: a scenario for folders of pictures."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError, raise_all
from .model_options import Model, ModelConfig, Pretrained, model_settings
from .output import say_line

if TYPE_CHECKING:
    from ..config import scenario


def init(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of class folders, of pictures beside a table of their classes, or of Hugging Face's"
            " Parquet files; each is a task of the stream."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The scenario file to write.")
    ] = Path("scenario.yaml"),
    shots: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Training images a class; by default what half of the classes have, at most 16; of three or"
            " more, one is left for tuning.",
        ),
    ] = None,
    model: Model = None,
    model_config: ModelConfig = None,
    pretrained: Pretrained = None,
    zero_shot: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Class folders of no task, to measure what is retained; by default ImageNet, if it is"
            " found ($CL_COMPLORA_DATA or ~/data).",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Look at folders of pictures and write a commented scenario that runs."""
    from ..data.discovery.discover import describe
    from ..files import write_text

    if output.suffix not in (".yaml", ".yml"):
        raise UserError(f"-o {output}: must end in .yaml")
    if os.path.lexists(output) and not force:
        raise UserError(f"{output}: is there already; --force overwrites it")
    start, notes = _model(model, model_config, pretrained)
    text, found = describe(folders, output, shots, start, zero_shot)
    write_text(output, text)
    refused, drawn = _drawn(output)
    for note in (*notes, *found, *drawn):
        say_line(note)
    typed = quote(str(output))
    first = "mend what is refused, " if refused else ""
    say_line(f"{output} written; {first}cl-complora check {typed}, then cl-complora run {typed}")


def _drawn(output: Path) -> tuple[bool, list[str]]:
    """Whether pictures can be drawn for the tasks of the scenario, and what to say of them."""
    from ..config import load_scenario
    from ..data.checks.plausibility import copies_of_few
    from ..data.planning import check_names_of_folders, plan

    located = load_scenario(str(output))
    # The other sets are not drawn from, and may be large.
    tasks = replace(located, value=located.value.model_copy(update={"zero_shot": []}))
    try:
        plans = plan(tasks, located.value.seeds[0])
        check_names_of_folders(located)
    except UserError as error:
        return True, [f"cl-complora run refuses this: {message}" for message in error.messages]
    return False, copies_of_few(plans)


def _model(name: str | None, config: str | None, pretrained: str | None) -> tuple[scenario.Model, list[str]]:
    """The model that the options name, and what was chosen for it.

    Raises:
        UserError: naming the option, for a name or tag that there is not and a file that is missing.
    """
    from ..config import load_scenario
    from ..config.model_names import EMBEDDED, check_model, tags_of
    from ..config.normalisation import unstated
    from ..config.repositories import is_address

    # Any scenario does: its model is exchanged for the one that the options name.
    located = load_scenario(EMBEDDED, model_settings(name, config, pretrained))
    raise_all(check_model(located))
    chosen, notes = located.value.model, []
    if chosen.name == EMBEDDED and chosen.config is None:
        return chosen, notes
    if chosen.pretrained is None and not is_address(chosen.name):
        tags = () if chosen.config is not None else tags_of(chosen.name) or ()
        told = f"{chosen.name}: no --pretrained is given, and "
        if tags:
            chosen = chosen.model_copy(update={"pretrained": tags[0]})
            notes.append(f"{told}the tag {tags[0]} is taken; there are {', '.join(tags)}")
        else:
            notes.append(f"{told}the weights are random")
    if note := unstated(located.value.model, located.folder):
        notes.append(note)
    return chosen, notes
