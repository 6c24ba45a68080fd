"""cl-complora explain: which part of which update made which task forgotten."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from .consoles import log_console
from .options import Run, RunModelConfig, RunWeights, telling
from .output import say_json
from .report import say_written

if TYPE_CHECKING:
    from ..finished.explain import Pair

# Parts of a kind that are worth a line in a terminal; all of them are in explain.json and in the report.
SHOWN = 3


def explain(
    run: Run,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of tasks to explain, those that lost most.")] = 5,
    images: Annotated[int, typer.Option(min=1, help="Test images of a set to measure on, at most.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
    pretrained: RunWeights = None,
    model_config: RunModelConfig = None,
) -> None:
    """Why did it forget? Take parts of each update out, one at a time, and see what of the old accuracy comes
    back."""
    from ..finished.explain import explain as find
    from ..finished.states import open_run

    console = log_console()
    tell = telling(console, as_json)
    found = find(
        open_run(run, after="0", pretrained=pretrained, model_config=model_config), pairs, images, tell
    )
    if as_json:
        say_json(json.loads((run / "explain.json").read_text(encoding="utf-8")))
        return
    if not found:
        console.print(
            f"on at most {images} test images of each set no task's accuracy fell when another was learned:"
            " nothing to explain; --images looks at more"
        )
    for pair in found:
        console.print(_table(pair))
    say_written(console, run, run / "explain.json")


def _table(pair: Pair) -> Table:
    before, after = 100 * pair.accuracy_before, 100 * pair.accuracy_after
    title = (
        f"'{pair.old}' lost {pair.lost:.1f} points ({before:.1f} → {after:.1f} %) when '{pair.new}' was"
        " learned"
    )
    table = Table(title=Text(title), title_justify="left")
    table.add_column("without")
    kept = [f"{name} back" for name in pair.zero_shot]
    for column in ("points back", "probability", f"lost on {pair.new}", *kept):
        table.add_column(Text(column), justify="right")
    for kind in dict.fromkeys(part.kind for part in pair.parts):
        for place, part in enumerate(pair.top(kind)[:SHOWN]):
            values = (part.returned, part.probability, part.cost, *part.retention.values())
            label = Text(f"{kind}: {part.name}", style="bold" if place == 0 else "")
            table.add_row(label, *(f"{value:+.1f}" for value in values))
        table.add_section()
    return table
