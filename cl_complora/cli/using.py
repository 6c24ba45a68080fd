"""cl-complora export, predict, eval and init: what is done with a finished run, and before the first one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..errors import UserError
from .options import log_console

if TYPE_CHECKING:
    from ..finished.measure import Measured

Run = Annotated[Path, typer.Argument(help="Folder of a run, such as runs/embedded/complora/seed0.")]
After = Annotated[
    str | None, typer.Option(help="State after this task (name or number; 0: untouched); the last by default.")
]
Prompts = Annotated[
    list[str] | None, typer.Option("--prompt", help="Template such as 'a photo of a {}'; may be repeated.")
]


def export(
    run: Run,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("model.safetensors"),
    after: After = None,
    half: Annotated[bool, typer.Option("--half", help="16-bit floats.")] = False,
) -> None:
    """Write a run's merged weights as a plain open_clip checkpoint, with its model config and a snippet beside it."""
    from ..finished.export import export as write
    from ..finished.states import open_run

    state = open_run(run, after)
    for path in write(state, output, half):
        typer.echo(f"{path}  {path.stat().st_size:,} bytes")


def predict(
    run: Run,
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    classes: Annotated[str, typer.Option(help="Class names of your own, separated by commas.")] = "",
    task: Annotated[str | None, typer.Option(help="Classes of this task; those of all tasks by default.")] = None,
    prompt: Prompts = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to show for each picture.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list instead of lines.")] = False,
    after: After = None,
) -> None:
    """Classify pictures with a run's model."""
    from ..finished.predict import label_space, pictures, predict
    from ..finished.states import open_run

    if classes and task is not None:
        raise UserError("--classes and --task: give one of the two")
    files = pictures(images)
    state = open_run(run, after)
    names = [name.strip() for name in classes.split(",")] if classes else []
    found = predict(state, files, label_space(state, names, prompt or (), task), top)
    rows, failed = [], False
    for one in found:
        failed |= one.error is not None
        if as_json:
            shares = [{"class": name, "probability": share} for name, share in one.classes]
            rows.append({"image": str(one.path)} | ({"error": one.error} if one.error else {"classes": shares}))
        elif one.error:
            print(f"error: {one.error}", file=sys.stderr)
        else:
            typer.echo(f"{one.path}  " + "  ".join(f"{name} {100 * share:.1f} %" for name, share in one.classes))
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    if failed:
        raise typer.Exit(1)


def evaluate(
    run: Run,
    after: After = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Class folders to measure instead of the run's own stream; may be repeated."),
    ] = None,
    prompt: Prompts = None,
    without: Annotated[list[str] | None, typer.Option(help="Leave this task's update out; may be repeated.")] = None,
    scale: Annotated[
        list[str] | None, typer.Option(metavar="TASK=FACTOR", help="Scale this task's update; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Measure any state of a run: on its own stream or on class folders, with tasks left out or scaled."""
    from ..finished.measure import measure_folder, measure_stream
    from ..finished.states import open_run

    factors = {name: 0.0 for name in without or ()}
    for text in scale or ():
        name, equals, factor = text.rpartition("=")
        try:
            factors[name] = float(factor)
        except ValueError:
            equals = ""
        if not equals or factors[name] != factors[name]:
            raise UserError(f"--scale {text}: must have the form TASK=FACTOR, such as digits=0.5")
    state = open_run(run, after, factors)
    if data:
        found = [measure_folder(state, root, prompt or ()) for root in data]
    else:
        found = measure_stream(state, as_recorded=not factors)
    if as_json:
        typer.echo(json.dumps([vars(one) for one in found], indent=1, ensure_ascii=False))
    else:
        log_console().print(_measured(found, f"{run} after {state.after[-1] if state.after else 'no task'}"))


def _measured(found: list[Measured], title: str) -> Table:
    from ..metrics import interval

    table = Table(title=title, title_justify="left")
    recorded = any(one.recorded is not None for one in found)
    for column in ("", "accuracy %", "95 % interval", "images", *(["recorded %"] if recorded else [])):
        table.add_column(column, justify="right" if column else "left")
    for one in found:
        low, high = interval(one.accuracy, one.images)
        row = [one.name, f"{100 * one.accuracy:.1f}", f"{100 * low:.1f}–{100 * high:.1f}", str(one.images)]
        table.add_row(*row, *([f"{100 * one.recorded:.1f}"] if one.recorded is not None else []))
    return table


def init(
    folders: Annotated[list[Path], typer.Argument(help="Folders of class folders; each is a task of the stream.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The scenario file to write.")] = Path("scenario.yaml"),
    shots: Annotated[
        int | None, typer.Option(min=1, help="Training images a class; what there is, at most 16.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Look at class folders and write a commented scenario that runs."""
    from ..data.discover import describe
    from ..files import write_text

    if output.suffix not in (".yaml", ".yml"):
        raise UserError(f"-o {output}: must end in .yaml")
    if output.exists() and not force:
        raise UserError(f"{output}: is there already; --force overwrites it")
    text, notes = describe(folders, output, shots)
    write_text(output, text)
    for note in notes:
        typer.echo(note)
    typer.echo(f"{output} written; cl-complora check {output}, then cl-complora run {output}")
