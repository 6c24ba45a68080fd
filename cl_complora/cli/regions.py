"""cl-complora regions: what a run's model knows of places in pictures."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .consoles import log_console
from .options import AsJson, Run, RunModelConfig, RunWeights, telling
from .output import say_json

NAMES = {"class_token": "class token", "dense": "dense", "box": "box", "crop": "crop"}


def regions(
    run: Run,
    images: Annotated[int, typer.Option(min=1, help="Pictures of a set, at most.")] = 500,
    as_json: AsJson = False,
    pretrained: RunWeights = None,
    model_config: RunModelConfig = None,
) -> None:
    """Accuracy of dense features and of crops beside the class token's, before the stream and after it."""
    from ..finished.region_accuracy import FILE
    from ..finished.region_accuracy import regions as find
    from ..finished.states import open_run

    console = log_console()
    tell = telling(console, as_json)
    found = find(open_run(run, after="0", pretrained=pretrained, model_config=model_config), images, tell)
    if as_json:
        say_json(found)
        return
    console.print(_table(found))
    console.print(f"{run / FILE} written, with every state between", markup=False)


def _table(found: dict[str, Any]) -> Table:
    before, after = found["states"][0]["sets"], found["states"][-1]["sets"]
    last = found["states"][-1]["after"]
    table = Table(title=Text(f"Accuracy by texts in %, untouched → after '{last}'"), title_justify="left")
    table.add_column("set")
    table.add_column("pictures", justify="right")
    for name in NAMES.values():
        table.add_column(name, justify="right")
    for name, now in after.items():
        cells = [f"{100 * before[name][key]:.1f} → {100 * now[key]:.1f}" for key in NAMES]
        table.add_row(Text(name), str(found["images"][name]), *cells)
    table.caption = Text("dense: mean over the patches; box: over the central ones; crop: that box enlarged")
    return table
