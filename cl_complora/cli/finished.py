"""cl-complora export, predict and eval: what is done with a finished run."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..errors import UserError
from .class_names import class_names
from .consoles import log_console
from .options import AsJson, Device, Run, RunModelConfig, RunWeights, telling
from .output import end_when_unread, say_json, say_line
from .shard_options import (
    BatchSize,
    Cluster,
    InShards,
    OneShard,
    Precision,
    ShardFolder,
    check_sharding,
    evaluate_request,
)

if TYPE_CHECKING:
    from ..finished.states import State
    from ..finished.update_curve import Curve

After = Annotated[
    str | None,
    typer.Option(help="State after this task (name or number; 0: untouched); the last by default."),
]
Prompts = Annotated[
    list[str] | None, typer.Option("--prompt", help="Template such as 'a photo of a {}'; may be repeated.")
]


Without = Annotated[list[str] | None, typer.Option(help="Leave this task's update out; may be repeated.")]
Scale = Annotated[
    list[str] | None,
    typer.Option(metavar="TASK=FACTOR", help="Scale this task's update; may be repeated."),
]


def export(
    run: Run,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")] = Path(
        "model.safetensors"
    ),
    after: After = None,
    without: Without = None,
    scale: Scale = None,
    half: Annotated[bool, typer.Option("--half", help="16-bit floats.")] = False,
    peft: Annotated[
        bool,
        typer.Option("--peft", help="Also the update alone, as a PEFT adapter in the folder <file>-peft."),
    ] = False,
    pretrained: RunWeights = None,
    model_config: RunModelConfig = None,
) -> None:
    """Write a run's merged weights as a plain open_clip checkpoint, with its model config and a snippet
    beside it."""
    from ..finished.export import export as write
    from ..finished.head_export import about_heads
    from ..finished.predict import unfinished
    from ..finished.states import open_run

    state = open_run(run, after, _factors(without, scale), pretrained, model_config)
    if after is None and (note := unfinished(state)):
        _note(note)
    files = write(state, output, half, peft)
    for path in files:
        say_line(f"{path}  {path.stat().st_size:,} bytes")
    if note := about_heads(files):
        typer.echo(f"note: {note}")


def predict(
    run: Run,
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    classes: Annotated[
        str | None,
        typer.Option(
            help=(
                "Class names of your own, separated by commas; a name that holds one in double quotes; or"
                " @FILE, a text file of one name a line."
            )
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Classes of this task; those of all tasks by default.")
    ] = None,
    prompt: Prompts = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to show for each picture.")] = 5,
    stored: Annotated[
        str | None,
        typer.Option(
            "--range",
            metavar="BITS|LOW,HIGH",
            help=(
                "Stored values that become black and white, of pictures of more than 8 bits a channel: 12, or"
                " 0,4095; by default those that the run learned with, unless the pictures have quite others."
            ),
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list instead of lines.")] = False,
    after: After = None,
    without: Without = None,
    scale: Scale = None,
    pretrained: RunWeights = None,
    model_config: RunModelConfig = None,
) -> None:
    """Classify pictures with a run's model."""
    from ..data.images.value_range import given_range
    from ..finished.predict import Question, classify
    from ..finished.states import open_run

    values = None if stored is None else given_range(stored)
    named = [] if classes is None else class_names(classes)
    question = Question(named, task, prompt or (), top, values)
    end_when_unread()

    def state() -> State:
        return open_run(run, after, _factors(without, scale), pretrained, model_config, task)

    rows, failed = [], False
    for one in classify(state, images, question, after is None, _note):
        failed |= one.error is not None
        if as_json:
            shares = [{"class": name, "probability": share} for name, share in one.classes]
            rows.append(
                {"image": str(one.path)} | ({"error": one.error} if one.error else {"classes": shares})
            )
        elif one.error:
            say_line(f"error: {one.error}", err=True)
        else:
            shown = [f"{name} {100 * share:.1f} %" for name, share in one.classes]
            say_line("  ".join((str(one.path), *shown)))
    if as_json:
        say_json(rows)
    if failed:
        raise typer.Exit(1)


def _note(line: str) -> None:
    say_line(f"note: {line}", err=True)


def evaluate(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            help=(
                "Folder or name of a run; or a model: embedded, an open_clip name, or a .safetensors that"
                " export wrote."
            ),
        ),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="What to measure on instead of the run's own stream: class folders, a table of pictures and"
            " their classes, the name or YAML of a scenario, a name of 'list datasets'; may be repeated."
        ),
    ] = None,
    prompt: Prompts = None,
    after: After = None,
    without: Without = None,
    scale: Scale = None,
    all_classes: Annotated[
        bool,
        typer.Option(
            "--all-classes",
            help="Ask about the tasks' pictures among all classes learned so far, as predict does without"
            " --task.",
        ),
    ] = False,
    curve: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK",
            help=(
                "Measure the stream along this task's update, from left out to whole, and plot it; 'each' for"
                " every "
                "task; may be repeated."
            ),
        ),
    ] = None,
    factors: Annotated[
        str | None,
        typer.Option(help="Factors of the curve, separated by commas.  [default: 0,0.25,0.5,0.75,1]"),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="File of the curve (.svg, .png or .pdf).  [default: RUN/curve.svg]")
    ] = None,
    model_config: Annotated[
        str | None, typer.Option(help="A MODEL's open_clip model config (JSON); a RUN's, where it was moved.")
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="A MODEL's open_clip tag or weight file; a RUN's, where it was moved.")
    ] = None,
    device: Device = "auto",
    precision: Precision = None,
    batch_size: BatchSize = None,
    shards: InShards = None,
    shard: OneShard = None,
    shard_folder: ShardFolder = None,
    cluster: Cluster = None,
    as_json: AsJson = False,
) -> None:
    """Measure any state of a run (on its stream or other data, with tasks left out or scaled), or any
    model."""
    one = check_sharding(device, shards, shard, shard_folder, cluster)
    among = all_classes or None
    for_runs = {
        "--after": after,
        "--without": without,
        "--scale": scale,
        "--all-classes": among,
        "--curve": curve,
    }
    for_curves = {"--factors": factors, "--plot": plot}
    model = (pretrained, model_config)
    if not curve:
        _none_of(for_curves, "is for --curve")
    run = _run_meant(what, model_config is not None)
    if run is not None:
        if curve:
            _none_of(
                {"--data": data, "--prompt": prompt},
                "is not for --curve, which measures the run's own stream",
            )
            how = {"--precision": precision, "--batch-size": batch_size, "--all-classes": among}
            _none_of({"--shards": shards, "--shard": shard, **how}, "is not for --curve")
            _draw_curves(run, after, _factors(without, scale), curve, factors, plot, as_json, *model, device)
            return
        if prompt and not data:
            raise UserError("--prompt: is for --data; the run's own stream has its own prompts")
        if data:
            _none_of({"--all-classes": among}, "is for the run's own stream, and not for --data")
    else:
        _none_of(for_runs, f"is for a run, and {what} is no run's folder")
    from ..finished.eval_request import EvalRequest

    request = EvalRequest(
        str(run or what),
        run is not None,
        tuple(data or ()),
        tuple(prompt or ()),
        after,
        tuple(_factors(without, scale).items()),
        *model,
        device,
        precision,
        batch_size,
        all_classes,
    )
    evaluate_request(request, shards, one, shard_folder, as_json, cluster)


def _run_meant(what: str, own_config: bool) -> Path | None:
    """The run that is meant; None where it is a model. What is neither is told before anything heavy is
    imported.

    Args:
        what: as it was given.
        own_config: whether a model config is given: of a model that may have any name, or of a run that was
            moved.
    """
    from ..config.model_names import EMBEDDED, architectures
    from ..config.repositories import is_address
    from ..store.named_runs import find_run

    named = (
        what == EMBEDDED
        or is_address(what)
        or what.endswith(".safetensors")
        or what in (architectures() or (what,))
    )
    if named and not Path(what).is_dir():
        return None
    try:
        return find_run(what)
    except UserError as error:
        if Path(what).is_dir():
            raise
        if "runs are called that" in error.messages[0]:
            other = "; or, for the model of --model-config, another name" if own_config else ""
            raise UserError(error.messages[0] + other) from None
        if own_config and "/" not in what:  # with one it can be no model's name, only a run's
            return None
        close = difflib.get_close_matches(what, architectures(), n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        runs = error.messages[0].partition("; runs in ")
        there = f"; runs in {runs[2]}" if runs[2] else ""
        raise UserError(
            f"{what}: neither a run's folder nor a model{hint}; a model is {EMBEDDED}, a name that"
            " 'cl-complora list models' lists, or a .safetensors file that 'cl-complora export' wrote"
            f"{there}"
        ) from None


def _none_of(options: dict[str, object], reason: str) -> None:
    for option, value in options.items():
        if value is not None:
            raise UserError(f"{option}: {reason}")


def _factors(without: list[str] | None, scale: list[str] | None) -> dict[str, float]:
    given = [(name, 0.0) for name in without or ()]
    for text in scale or ():
        name, equals, factor = text.rpartition("=")
        form = "TASK=FACTOR, such as digits=0.5"
        given.append((name, _number(factor if equals else "", f"--scale {text}", form)))
    names = [name for name, _ in given]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--without and --scale: name a task once in all; {twice!r} is named twice")
    return dict(given)


def _number(text: str, option: str, form: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not math.isfinite(factor):
        raise UserError(f"{option}: must have the form {form}")
    return factor


def _draw_curves(
    run: Path,
    after: str | None,
    scale: dict[str, float],
    tasks: list[str],
    factors: str | None,
    plot: Path | None,
    as_json: bool,
    pretrained: str | None = None,
    model_config: str | None = None,
    device: str = "auto",
) -> None:
    from ..files import write_bytes
    from ..finished.states import find_state
    from ..finished.update_curve import FACTORS, curves_along, each_task
    from ..report.run.curve_figure import FORMATS, scaling_figure
    from ..run.devices import check_precision, device_of

    given = () if factors is None else factors.split(",")
    chosen = tuple(_number(factor, f"--factors {factors}", "0,0.5,1") for factor in given) or FACTORS
    file = plot or run / "curve.svg"
    if file.suffix[1:] not in FORMATS:
        raise UserError(f"--plot {file}: must end in .{', .'.join(FORMATS)}")
    if not file.parent.is_dir() or file.is_dir():
        raise UserError(f"--plot {file}: must be a file in a folder that exists")
    console = log_console()
    tell = telling(console, as_json)
    chosen_device = device_of(device)
    state = find_state(run, after, scale, pretrained, model_config)
    if not state.after:
        raise UserError("--curve: this state holds no task's update")
    check_precision(state.precision, chosen_device, f"{run}: evaluation.precision")
    if "each" in tasks and "each" not in state.after:
        tasks = each_task(state, tell)
    found = curves_along(state, tasks, chosen, tell, chosen_device)
    if as_json:
        kept = [{"task": one.task, "factors": one.factors, "accuracy": one.accuracy} for one in found]
        say_json(kept)
    for one in () if as_json else found:
        console.print(_curve(one))
    # Last, because a folder that cannot be written must not cost the figures.
    lines = {one.task: one.lines() for one in found}
    try:
        write_bytes(file, scaling_figure(found[0].factors, lines, file.suffix[1:]))
    except OSError as error:
        raise UserError(f"--plot {file}: cannot be written ({error.strerror})") from None
    if not as_json:
        console.print(f"{file} written", markup=False)


def _curve(found: Curve) -> Table:
    table = Table(title=Text(f"accuracy % along the update of '{found.task}'"), title_justify="left")
    table.add_column("factor", justify="right")
    lines = found.lines()
    for name in lines:
        table.add_column(Text(name), justify="right")
    for place, factor in enumerate(found.factors):
        table.add_row(f"{factor:g}", *(f"{100 * values[place]:.1f}" for values in lines.values()))
    return table
