"""cl-complora audit: can one tell which images a task was trained on?"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .consoles import log_console
from .options import AsJson, Run, RunModelConfig, RunWeights, telling
from .output import say_json
from .report import say_written


def audit(
    run: Run,
    images: Annotated[
        int, typer.Option(min=1, help="Training images of a task, and unused ones to compare with, at most.")
    ] = 1000,
    as_json: AsJson = False,
    pretrained: RunWeights = None,
    model_config: RunModelConfig = None,
) -> None:
    """Does the model give its training images away? Membership inference on every task after every task."""
    from ..finished.membership import FILE
    from ..finished.membership import audit as find
    from ..finished.states import open_run

    console = log_console()
    tell = telling(console, as_json)
    found = find(open_run(run, after="0", pretrained=pretrained, model_config=model_config), images, tell)
    if as_json:
        say_json(found)
        return
    console.print(_table(found))
    if any(task["non_members"] * found["fpr"] < 1 for task in found["tasks"]):
        console.print(
            f"with fewer than {round(1 / found['fpr'])} non-members, an FPR of {found['fpr']:.0%} allows no"
            " false alarm at all",
            markup=False,
        )
    say_written(console, run, run / FILE)


def _table(found: dict[str, Any]) -> Table:
    """Every task right after it and in the last state, by the loss difference to the untouched model."""
    table = Table(title=Text("Membership by loss difference to the untouched model"), title_justify="left")
    table.add_column("task")
    for column in ("members", "non-members", "AUC before", "AUC just trained", "AUC now", "TPR now"):
        table.add_column(Text(column), justify="right")
    for task in found["tasks"]:
        rows = task["untouched"]["loss-difference"]
        trained = next(row for row in rows if row["state"] == task["trained_in_state"])
        shown = [task["null"]["loss-difference"]["auc"], trained["auc"], rows[-1]["auc"], rows[-1]["tpr"]]
        sizes = [str(task[key]) for key in ("members", "non_members")]
        table.add_row(Text(task["name"]), *sizes, *map(_interval, shown))
    table.caption = Text(f"95 % intervals; TPR at an FPR of at most {found['fpr']:.0%}")
    return table


def _interval(estimate: dict[str, float | None]) -> str:
    if estimate["value"] is None:
        return "–"
    return f"{estimate['value']:.2f} ({estimate['low']:.2f}–{estimate['high']:.2f})"
