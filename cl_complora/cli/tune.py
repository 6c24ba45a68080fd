"""cl-complora tune."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..api.arguments import number
from ..compare.trial_words import words_of
from ..errors import UserError, raise_all
from ..run.devices import known_device
from ..run.signals import exit_code_of, terminated_like_interrupted
from .consoles import log_console
from .options import AllowPlugins, Device, Elsewhere, Out, Settings, say, seeds_of

if TYPE_CHECKING:
    from ..compare.outcomes import Outcome
    from ..compare.trials import Trial
    from ..compare.tuning import Tuning


@words_of("tune")
def tune(
    scenario: Annotated[str, typer.Argument(help="Name of a shipped scenario, or a YAML file.")],
    strategy: Annotated[
        str, typer.Option("--strategy", "-s", help="Name of a shipped strategy, or a YAML file.")
    ] = "complora",
    budget: Annotated[float, typer.Option(help="Minutes after which nothing more is tried.")] = 30.0,
    floor: Annotated[
        float | None,
        typer.Option(
            help=(
                "Choose among settings that lose at most this of zero-shot accuracy, in points; -3 by"
                " default where the scenario measures it."
            )
        ),
    ] = None,
    metric: Annotated[
        str, typer.Option(help="What settings are chosen by: last, average or harmonic.")
    ] = "last",
    seeds: Annotated[
        str, typer.Option(help="Every setting is tried with all of these; the scenario's first by default.")
    ] = "",
    validation_shots: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images a class to choose by; by default what the shots leave over, at most 16."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trials at a time; each has its share of the cores.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The strategy file to write; beside the runs by default."
        ),
    ] = None,
    device: Device = "auto",
    out: Out = Path("runs"),
    set_: Settings = None,
    allow_plugins: AllowPlugins = False,
    elsewhere: Elsewhere = False,
) -> None:
    """Choose rates, steps and energy for a scenario on validation shots, and write the strategy file.

    Test images are never opened. Finished trials are reused and interrupted ones go on: the same command
    again goes on with the search.
    """
    from ..compare import tuning
    from ..compare.choosing import known_metric
    from ..compare.tuned import command, place_of, save
    from ..config import load_scenario
    from ..config.model_names import check_model
    from ..config.overrides import refuse_seeds_twice, split_overrides
    from ..progress import time_bar

    for option, value in (("--budget", budget), ("--floor", floor)):
        if value is not None:
            number(option, value)
    if budget <= 0:
        raise UserError(f"--budget {budget:g}: must be greater than 0 (minutes)")
    known_metric(metric)
    known_device(device)
    for_scenario, for_strategy = split_overrides(set_ or [])
    if seeds:
        refuse_seeds_twice(for_scenario)
    located = load_scenario(scenario, for_scenario)
    raise_all(check_model(located))
    request = tuning.TuningRequest(
        scenario=scenario,
        strategy=strategy,
        seeds=seeds_of("--seeds", seeds) or (located.value.seeds[0],),
        minutes=budget,
        metric=metric,
        floor=floor,
        validation_shots=validation_shots,
        scenario_settings=tuple(for_scenario),
        strategy_settings=tuple(for_strategy),
    )
    tuned = tuning.prepare(request)
    file = place_of(tuned, out, output)
    console = log_console()
    for line in _intention(tuned):
        say(console, line)
    finished = 0

    def report(trial: Trial, outcome: Outcome) -> None:
        nonlocal finished
        finished += 1
        say(console, f"{finished:3} {trial.label()}: {outcome.told()}")
        note(f"{finished} finished")

    try:
        bar = time_bar(console, f"tuning {tuned.strategy.value.name}", 60 * budget)
        with bar as note, terminated_like_interrupted():
            tuning.tune(tuned, out, jobs, device, allow_plugins, report, elsewhere=elsewhere)
    except KeyboardInterrupt as stopped:
        print(f"interrupted after {finished} finished trials; the same command goes on", file=sys.stderr)
        raise typer.Exit(exit_code_of(stopped)) from None
    # What took minutes is on the disk before anything can go wrong with a terminal.
    written = save(tuned, file)
    _show(console, tuned)
    console.print()
    say(console, f"written: {', '.join(map(str, written))}")
    say(console, f"use it: {command(tuned, file)}")


def _intention(tuned: Tuning) -> list[str]:
    name, scenario = tuned.strategy.value.name, tuned.scenario.value.name
    said = (
        f"tuning {', '.join(tuned.grid)} of {name} on {scenario}: chosen by {tuned.request.metric} on"
        f" {tuned.validation} validation images (at most {tuned.shots} a class)"
    )
    if tuned.floor is None:
        return [
            said,
            f"note: retention is not measured: {tuned.unmeasured}; so no floor holds, and settings are chosen"
            " by what is learned alone",
        ]
    return [f"{said}, retention on {', '.join(tuned.held_out)} at least {tuned.floor:+g} points"]


def _show(console: Console, tuned: Tuning) -> None:
    from rich.table import Table

    from ..compare.tuned import chosen_told, ended_told, figures_told, floor_told

    table = Table(title="tried, on validation images", title_justify="left")
    for column in (*tuned.grid, "Last", "retention", *([tuned.request.metric] * _is_scored_apart(tuned)), ""):
        table.add_column(column.rpartition(".")[2], justify="right")
    for one in tuned.curve:
        settings = [f"{value:g}" for value in one["settings"].values()]
        figures = ["failed", ""] + [""] * _is_scored_apart(tuned)
        if one["error"] is None:
            figures = [f"{one['last']:.1f}", f"{one['retention']:+.1f}" if tuned.held_out else "–"]
            figures += [f"{one['score']:.1f}"] * _is_scored_apart(tuned)
        mark = "chosen" if one["settings"] == dict(tuned.chosen) else ""
        table.add_row(*settings, *figures, mark)
    console.print(table)
    best, before = tuned.found(tuned.chosen), tuned.curve[0]
    say(console, f"tried: {ended_told(tuned)}")
    if not tuned.complete:
        say(console, f"the same command goes on for another {tuned.request.minutes:g} minutes")
    say(console, f"chosen: {chosen_told(tuned)}")
    say(console, f"  {figures_told(tuned, best)}; as it stood {figures_told(tuned, before)}")
    if tuned.stayed:
        say(console, f"  {tuned.stayed}")
    say(console, f"floor: {floor_told(tuned)}")


def _is_scored_apart(tuned: Tuning) -> bool:
    return tuned.request.metric != "last"
