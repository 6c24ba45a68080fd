"""cl-complora curvature: how curved a task's loss is where its training starts."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .consoles import log_console
from .options import AsJson, Run, RunModelConfig, RunWeights, telling
from .output import say_json
from .report import say_written

# Modules that are worth a line in a terminal; all of them are in curvature.json and in the report.
SHOWN = 8


def curvature(
    run: Run,
    task: Annotated[list[str] | None, typer.Option(help="Task; repeatable. By default the first.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Training images to take the loss on, at most.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps of Lanczos, at most.")] = 100,
    tolerance: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Relative ‖Hx − λx‖ at which Lanczos stops.")
    ] = 1e-3,
    jointly: Annotated[bool, typer.Option("--jointly", help="All modules together, and none alone.")] = False,
    as_json: AsJson = False,
    pretrained: RunWeights = None,
    model_config: RunModelConfig = None,
) -> None:
    """Largest eigenvalue of the Hessian of a task's loss in what is trained, where its training starts."""
    from ..finished.loss_curvature import FILE
    from ..finished.loss_curvature import curvature as find
    from ..finished.states import find_state

    console = log_console()
    tell = telling(console, as_json)
    state = find_state(run, after="0", pretrained=pretrained, model_config=model_config)
    found = find(state, task or (), images, tolerance, steps, jointly, tell)
    if as_json:
        say_json(found)
        return
    for one in found["tasks"]:
        console.print(_table(one, found["coordinates"]))
    rates = [("trained with optimiser.lr", found["learning_rate"])]
    rates += [("a sweep chose optimiser.lr", (found["swept"] or {}).get("lr"))]
    for name, rate in rates:
        if rate is not None:
            console.print(f"{name} {rate:g}", markup=False)
    say_written(console, run, run / FILE)


def _table(one: dict[str, Any], coordinates: str) -> Table:
    table = Table(title=Text(f"'{one['name']}': λ of its loss in {coordinates}"), title_justify="left")
    table.add_column("module")
    for column in ("λ_max", "λ_min", "steps"):
        table.add_column(column, justify="right")
    ranked = sorted(one["modules"].items(), key=lambda item: -item[1]["largest"])
    for name, values in [("all jointly", one["joint"]), *ranked[:SHOWN]]:
        steps = str(values["steps"]) + ("" if values["converged"] else " (not settled)")
        table.add_row(Text(name), f"{values['largest']:.4g}", f"{values['smallest']:.4g}", steps)
    if len(ranked) > SHOWN:
        table.caption = Text(f"the {SHOWN} most curved of {len(ranked)} modules")
    return table
