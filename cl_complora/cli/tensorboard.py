"""cl-complora tensorboard: the server on the right folder."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError

# Part of the address: TensorBoard reads the smoothing of Time Series from the query, that of the other pages
# and the page to open from the fragment.
UNSMOOTHED = "?smoothing=0#custom_scalars&_smoothingWeight=0"


def tensorboard(
    folder: Annotated[Path, typer.Argument(help="A run, a comparison or the folder of all runs.")] = Path(
        "runs"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 6006,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines too.")
    ] = "localhost",
) -> None:
    """Show runs in TensorBoard: forgetting, zero-shot accuracy, training and geometry on one page, live."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give a run's, or the folder of all runs (--out)")
    if next(folder.rglob("events.out.tfevents.*"), None) is None:
        raise UserError(
            f"{folder}: holds no run that TensorBoard could show; cl-complora run makes one in runs/"
        )

    from tensorboard import program

    server = program.TensorBoard()
    server.configure(argv=["tensorboard", "--logdir", str(folder), "--port", str(port), "--host", host])
    try:
        address = server.launch()
    except program.TensorBoardServerException as error:
        hint = "; --port 0 takes any that is free" if "port" in str(error) else ""
        raise UserError(f"--port {port} --host {host}: {' '.join(str(error).split())}{hint}") from None
    typer.echo(f"{address.rstrip('/')}/{UNSMOOTHED}")
    typer.echo("With this address the charts are as measured. TensorBoard's own smoothing (0.6) shows other")
    typer.echo("numbers under Scalars and Time Series: set Smoothing to 0 there. Ctrl-C ends it.")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
