"""cl-complora report."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.console import Console

from .options import say
from .output import say_line


def say_report(console: Console, folder: Path) -> None:
    """Write the report that comes with every run and comparison, and say where it is."""
    from ..report.html import try_report

    written = try_report(folder, partial(say, console))
    if written is not None:
        say(console, f"report: {written}")


def say_written(console: Console, run: Path, file: Path) -> None:
    """Say which file of a run was written, and how it is read."""
    console.print(f"{file} written; cl-complora report {quote(str(run))} shows it all", markup=False)


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder or name of a run (embedded/complora), or folder of a comparison (runs/embedded)."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The file to write; report.html in the folder by default."
        ),
    ] = None,
    runs: Annotated[
        bool, typer.Option("--runs", help="Of a comparison: write the reports of its runs too.")
    ] = False,
) -> None:
    """Write a run or a comparison as one HTML file: numbers, drawings, reasons, and how to repeat it."""
    if not folder.exists():
        from ..store.named_runs import find_run

        folder = find_run(folder)

    from ..report.html import check_page, write_report, write_reports_of_runs

    check_page(output, option="--output")
    if runs:
        typer.echo(f"{len(write_reports_of_runs(folder))} reports of runs written")
    written = write_report(folder, output)
    say_line(f"{written}  {written.stat().st_size:,} bytes")
