"""cl-complora leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import say_line


def leaderboard(
    results: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Folder that compare --publish wrote.")
    ] = Path("results"),
    scenario: Annotated[
        list[str] | None, typer.Option(help="Only this scenario; may be repeated. All by default.")
    ] = None,
    reference: Annotated[str, typer.Option(help="Method that all are compared with.")] = "lora",
    markdown: Annotated[
        Path | None,
        typer.Option(dir_okay=False, metavar="FILE", help="Write the tables as Markdown into this file."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(dir_okay=False, metavar="FILE", help="Write one page that can be sorted and filtered."),
    ] = None,
) -> None:
    """Put all published results in one table per scenario; nothing is run.

    Without --markdown or --html the Markdown is printed.
    """
    from ..compare.leaderboard import leaderboard as board_of
    from ..compare.leaderboard import scenarios
    from ..files import write_text
    from ..report.html import check_page
    from ..report.leaderboard import leaderboard_page
    from ..report.leaderboard import markdown as as_markdown

    check_page(markdown, (".md", ".markdown", ".txt"), "--markdown")
    check_page(html, option="--html")
    boards = [board_of(results, name, reference) for name in scenario or scenarios(results)]
    for board in boards:
        if board["reference"] is None:
            note = f"{board['scenario']}: no current results of {reference}, so no differences to it"
            say_line(f"note: {note}", err=True)
    if markdown is not None:
        write_text(markdown, as_markdown(boards))
    if html is not None:
        write_text(html, leaderboard_page(boards).html())
    written = [path for path in (markdown, html) if path is not None]
    for path in written:
        say_line(str(path))
    if not written:
        print(as_markdown(boards), end="")
