"""``cl-complora list``: what there is to choose from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError
from .consoles import log_console
from .output import end_when_unread

if TYPE_CHECKING:
    from rich.table import Table

    from ..config.overview import Entry


# List → what its files are of.
_FILES = {"scenarios": "scenario", "strategies": "strategy"}


def list_(
    what: Annotated[
        str | None,
        typer.Argument(help="scenarios, strategies, models or datasets; all four by default."),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="A scenario or strategy whose file is shown, to begin your own with.")
    ] = None,
) -> None:
    """List what there is to choose from, or show the file of a scenario or strategy."""
    if what is not None and what not in LISTS:
        from ..config.catalog import shipped

        lists = [one for one, kind in _FILES.items() if what in shipped(kind)]
        hint = f"; did you mean 'list {lists[0]} {what}'?" if lists else ""
        raise UserError(
            f"list {what}: must be one of {', '.join(LISTS)}, or left out to list all of them{hint}"
        )
    end_when_unread()
    if name is not None:
        typer.echo(_file(what, name), nl=False)
        return
    if what is not None:
        LISTS[what]()
        return
    for index, (title, show) in enumerate(LISTS.items()):
        typer.echo(f"{chr(10) * bool(index)}{title.upper()}\n")
        show()


def _file(what: str | None, name: str) -> str:
    """The file of a scenario or strategy, as it stands."""
    from ..config.catalog import find
    from ..config.yaml_lines import MAX_BYTES
    from ..files import read_text

    if what not in _FILES:
        raise UserError(f"list {what} {name}: only {' and '.join(_FILES)} have files that can be shown")
    return read_text(find(_FILES[what], name), MAX_BYTES)


def _scenarios() -> None:
    from ..config.catalog import description, shipped

    # How each is run is the same for all; what their first lines say of it is for readers of the files.
    told = {name: description(path).partition(" Run: ")[0] for name, path in shipped("scenario").items()}
    _lines([(name, text) for name, text in sorted(told.items(), key=lambda one: one[0] != "embedded")])


def _strategies() -> None:
    from ..config.overview import entries

    console = log_console()
    if console.is_terminal:
        console.print(strategy_table(entries()))
        _legend(console.print)
        return
    # One line each, which say the same to grep, cut and a reader.
    _lines([(e.name, e.kind or "-", e.checked, e.trained, e.paper or "-", e.summary) for e in entries()])


def strategy_table(listed: list[Entry]) -> Table:
    """Kind by kind: what each strategy is and whose, what it trains, and what it was checked against.

    It can be read at 80 columns.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("strategy", no_wrap=True)
    table.add_column("what it is", min_width=34)
    table.add_column("trains", max_width=16)
    table.add_column("checked", no_wrap=True)
    title = None
    for entry in listed:
        if entry.title != title:
            title = entry.title
            table.add_section()
            table.add_row(Text(title, style="bold"))
        said = Text(entry.summary)
        if entry.paper:
            said.append(f"\n{entry.paper}", style="dim")
        table.add_row(Text(f" {entry.name}"), said, Text(entry.trained), Text(entry.checked))
    return table


def _legend(say: Callable[[str], None]) -> None:
    from ..config.about import CHECKED

    for name, meaning in CHECKED.items():
        say(f"[bold]{name}[/bold]: {meaning}", highlight=False)


def _data_sets() -> None:
    from ..data.registry import DATASETS
    from ..world.source import domain_rows

    rows = [*domain_rows()]
    rows += [(name, f"dataset: {d.title}, {d.classes} classes; {d.layout}") for name, d in DATASETS.items()]
    rows += [
        ("folder", "class folders of your own: source: {kind: folder, root: …}"),
        ("manifest", "a CSV or JSONL table of path, label, split: source: {kind: manifest, file: …}"),
        ("coop", "CoOp's split files: source: {kind: coop, file: split_zhou_….json, root: …}"),
        ("shards", "WebDataset tar files: source: {kind: shards, train: train-*.tar, test: test-*.tar}"),
        (
            "parquet",
            "Parquet files of Hugging Face: source: {kind: parquet, train: data/train-*.parquet, test: …}",
        ),
        (
            "huggingface",
            "data sets that are in Hugging Face's cache: source: {kind: huggingface, name: owner/name}",
        ),
        (
            "captions",
            "pictures with captions, for a task or for retrieval: source: {kind: captions, file: …json}",
        ),
        (
            "multi-label",
            "pictures of several classes each, for multi_label: source: {kind: multi-label, file: …jsonl}",
        ),
    ]
    _lines(rows)


def _models() -> None:
    _lines(list(_model_rows()))


def _model_rows() -> Iterator[tuple[str, str]]:
    import open_clip

    yield "embedded", "the small CLIP that ships with the package"
    for name in open_clip.list_models():
        tags = open_clip.list_pretrained_tags_by_model(name)
        yield name, f"tags: {', '.join(tags)}" if tags else "no published weights"


def _lines(rows: list[tuple[str, ...]]) -> None:
    """Rows as lines whose columns begin at one place each."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


LISTS: dict[str, Callable[[], None]] = {
    "scenarios": _scenarios,
    "strategies": _strategies,
    "models": _models,
    "datasets": _data_sets,
}
