"""``eval`` as a whole or in shards: its options, and what is printed of either."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from ..errors import UserError
from ..run.devices import known_device
from .consoles import log_console
from .options import say
from .output import say_json, say_line

if TYPE_CHECKING:
    from ..finished.asked_sets import Measured
    from ..finished.eval_request import EvalRequest
    from ..finished.eval_shards import Shards

# A shard has one batch of images at least; a million files in a folder would be no help to anyone.
MOST = 10_000

Precision = Annotated[
    Literal["fp32", "tf32", "bf16"] | None,
    typer.Option(help="Of the towers.  [default: as the run measured; fp32 of a MODEL]", show_default=False),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1, help="Images at a time.  [default: as the run measured; 256 of a MODEL]", show_default=False
    ),
]
InShards = Annotated[
    int | None,
    typer.Option(
        "--shards",
        metavar="N",
        min=1,
        max=MOST,
        help="Evaluate in N shards: those that are there are read, the others computed on all visible GPUs.",
    ),
]
OneShard = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Compute shard I of N alone (for Slurm arrays) and keep it."),
]
ShardFolder = Annotated[
    Path | None,
    typer.Option(help="Folder of the shards' files.  [default: RUN/shards; shards for a MODEL]"),
]


Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="auto|ADDRESS",
        help=(
            "Compute the shards of --shards on a Ray cluster (extra 'cluster'); auto finds the one of this"
            " machine, or makes one of this machine alone."
        ),
    ),
]


def shard_of(text: str) -> tuple[int, int]:
    """Number and count of ``I/N``.

    Raises:
        UserError: for anything else.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    number, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= of <= MOST:
        raise UserError(f"--shard {text}: must be I/N with 1 ≤ I ≤ N ≤ {MOST:,}, such as 2/8")
    return number, of


def check_sharding(
    device: str, shards: int | None, shard: str | None, folder: Path | None, cluster: str | None = None
) -> tuple[int, int] | None:
    """Refuse options that do not go together, before anything heavy is imported; the one shard.

    Raises:
        UserError: saying what to leave out.
    """
    known_device(device)
    one = None if shard is None else shard_of(shard)
    if shards is not None and shard is not None:
        raise UserError("--shards and --shard: give one of the two")
    if cluster is not None and shards is None:
        raise UserError("--cluster: is for --shards")
    if folder is not None and shards is None and shard is None:
        raise UserError("--shard-folder: is for --shards or --shard")
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UserError(f"--shard-folder {folder}: is no folder")
    return one


def evaluate_request(
    request: EvalRequest,
    shards: int | None,
    one: tuple[int, int] | None,
    folder: Path | None,
    as_json: bool,
    cluster: str | None = None,
) -> None:
    """Measure what is asked for, as a whole, in shards, or one shard of it, and print what was found."""
    from ..finished.eval_request import open_request

    opened = open_request(request, answered_here=cluster is None)
    for note in (*opened.notes, *opened.described()):
        _tell(note)
    if shards is None and one is None:
        found = opened.measured(opened.answer(opened.parts()))
        changed = opened.compared(opened.parts())
    else:
        from ..finished.eval_shards import Shards, gather

        place = folder or (Path(request.what) / "shards" if request.is_run else Path("shards"))
        if one is not None:
            _say_shard(Shards.find(opened, one[1], place), one[0], as_json)
            return
        all_shards = Shards.find(opened, shards, place)
        compute = None
        if cluster is not None:
            from ..finished.ray_shards import compute_on_cluster

            compute = partial(
                compute_on_cluster, request=request, shards=all_shards, address=cluster, tell=_tell
            )
        found = opened.measured(gather(request, all_shards, _tell, compute=compute))
        changed = all_shards.changed()
    if changed[1]:
        share = f"{100 * changed[0] / changed[1]:.2f} % of {changed[1]:,} answers"
        _tell(f"note: measured in {opened.precision}: {share} are others than in fp32")
    if as_json:
        say_json([vars(each) for each in found])
    else:
        log_console().print(measured_table(found, opened.title))


def _say_shard(shards: Shards, number: int, as_json: bool) -> None:
    known = shards.read(number, _tell)
    if known is None:
        shards.compute(number)
        known = shards.read(number) or []
    parts = shards.counts(known)
    if as_json:
        say_json(parts)
        return
    table = Table()
    for column in ("", "images", "from", "right"):
        table.add_column(column, justify="right" if column else "left")
    for part in parts:
        right = "–" if part["right"] is None else str(part["right"])
        table.add_row(Text(part["name"]), str(part["images"]), str(part["from"]), right)
    console = log_console()
    say(console, f"shard {number}/{shards.of} of {shards.opened.title}")
    console.print(table)
    console.print(
        f"{shards.path(number)}" if parts else "no images are left for it", markup=False, soft_wrap=True
    )


def _tell(sentence: str) -> None:
    """On standard error: standard output is the table or JSON."""
    say_line(sentence, err=True)


def measured_table(found: list[Measured], title: str) -> Table:
    """One row a set, with its interval."""
    from ..metrics import interval

    # As wide as its title, which would be broken to a narrower table.
    table = Table(title=Text(title), title_justify="left", min_width=cell_len(title))
    recorded = any(one.recorded is not None for one in found)
    for column in ("", "accuracy %", "95 % interval", "images", *(["recorded %"] if recorded else [])):
        table.add_column(column, justify="right" if column else "left")
    for one in found:
        low, high = interval(one.accuracy, one.images)
        told = f"{100 * low:.1f}–{100 * high:.1f}" if one.share else "–"
        row = [Text(one.name), f"{100 * one.accuracy:.1f}", told, str(one.images)]
        table.add_row(*row, *([f"{100 * one.recorded:.1f}"] if one.recorded is not None else []))
    return table
