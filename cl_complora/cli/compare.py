"""cl-complora compare."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..api.arguments import number
from ..compare.trial_words import words_of
from ..data.telling import counted
from ..errors import UserError, raise_all
from ..run.devices import known_device
from ..run.signals import exit_code_of, terminated_like_interrupted
from .consoles import log_console
from .options import AllowPlugins, Device, Elsewhere, Out, Settings, say, seeds_of
from .output import say_line
from .report import say_report

if TYPE_CHECKING:
    from rich.console import Console

    from ..compare.study import Comparison, Request
    from ..compare.workers import Placing
    from ..config.loading import Located
    from ..config.scenario import Scenario

# What is said to a scheduler of our own, and not to another one.
NOT_LISTED = ("--cluster", "--gpus-per-run", "--threads")


@words_of("compare")
def compare(
    scenario: Annotated[str, typer.Argument(help="Name of a shipped scenario, or a YAML file.")],
    strategies: Annotated[
        str, typer.Option("--strategies", "-s", help="Names or YAML files, separated by commas.")
    ] = "zeroshot,linear-probe,nearest-mean,text-head,finetune,lora,complora-plain,complora",
    seeds: Annotated[
        str, typer.Option(help="Seeds of the tests, separated by commas; the scenario's by default.")
    ] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time; each has its share of the cores.")] = 1,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B,…", help="Try these values for every method (lr=1e-4,3e-4); may be repeated."
        ),
    ] = None,
    sweep_from: Annotated[
        str | None,
        typer.Option(
            metavar="strategy|FILE",
            help=(
                "'strategy': each method's own sweep, from its YAML; or a strategy file whose sweep all take."
            ),
        ),
    ] = None,
    sweep_seeds: Annotated[
        str, typer.Option(help="Seeds of the sweep; the first of --seeds by default.")
    ] = "",
    metric: Annotated[
        str | None,
        typer.Option(help="What a swept value is chosen by: last, average or harmonic.  [default: last]"),
    ] = None,
    floor: Annotated[
        float | None,
        typer.Option(help="Choose among values that lose at most this (-10) of zero-shot accuracy."),
    ] = None,
    reference: Annotated[
        str, typer.Option(help="Strategy that differences are taken to; the first by default.")
    ] = "",
    validation_shots: Annotated[
        int | None,
        typer.Option(min=1, help="Images a class set apart for the sweep.  [default: the scenario's, or 4]"),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            metavar="FOLDER",
            help="Folder of published results: what is there is not run again.",
        ),
    ] = None,
    publish: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            metavar="FOLDER",
            help="Write a file of results for every method into this folder; what is there is not run again.",
        ),
    ] = None,
    list_: Annotated[
        bool,
        typer.Option(
            "--list",
            help=(
                "Run nothing; print a cl-complora run … for every run that is missing (of the sweep first,"
                " then of what it chose), for job arrays and xargs."
            ),
        ),
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="auto|ADDRESS",
            help=(
                "Run on a Ray cluster (extra 'cluster'), --jobs at a time on a node like this machine; auto"
                " finds the one of this machine, or makes one of this machine alone."
            ),
        ),
    ] = None,
    gpus_per_run: Annotated[
        float | None,
        typer.Option(
            "--gpus-per-run",
            metavar="SHARE",
            help="Share of a GPU that a run takes: 0.5 for two on each. Runs are spread over all GPUs.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of every run, instead of its share of cores or OMP_NUM_THREADS."),
    ] = None,
    device: Device = "auto",
    out: Out = Path("runs"),
    set_: Settings = None,
    allow_plugins: AllowPlugins = False,
    elsewhere: Elsewhere = False,
) -> None:
    """Compare strategies on one scenario: sweep on validation shots, test with every seed, one table.

    Finished runs are reused and interrupted ones go on: the same command again ends with the same table.
    """
    from ..compare import study
    from ..compare.choosing import check_floor, known_metric
    from ..compare.compare_progress import CompareProgress
    from ..compare.publishing import refuse_other_streams
    from ..compare.results_files import refuse_without_entries
    from ..compare.sweeps import refuse_what_only_a_sweep_reads
    from ..compare.workers import Placing
    from ..config import load_scenario
    from ..config.model_names import check_model
    from ..config.overrides import refuse_seeds_twice, split_overrides
    from ..files import check_writable, slug

    if sweep and sweep_from:
        raise UserError("--sweep and --sweep-from: give one of the two")
    if results and publish:
        raise UserError("--results and --publish: give one of the two; --publish reads what is there as well")
    if metric is not None:
        known_metric(metric)
    if floor is not None:
        number("--floor", floor)
        check_floor(floor)
    seeds_of_sweep = seeds_of("--sweep-seeds", sweep_seeds)
    if not sweep and sweep_from is None:
        # An entry of --publish records the metric, also that of a method which has nothing to sweep.
        read = None if publish else metric
        refuse_what_only_a_sweep_reads(read, floor, validation_shots, seeds_of_sweep)
    known_device(device)
    more = {"cluster": cluster, "gpus_per_run": gpus_per_run, "threads": threads, "elsewhere": elsewhere}
    if list_:
        running = {"--jobs": jobs != 1, "--publish": publish}
        running |= {k: more[k[2:].replace("-", "_")] for k in NOT_LISTED}
        _refuse(running, "is for running, and --list runs nothing; leave one of the two out")
    for_scenario, for_strategy = split_overrides(set_ or [])
    if seeds:
        refuse_seeds_twice(for_scenario)
    located = load_scenario(scenario, for_scenario)
    raise_all(check_model(located))
    if not list_:  # which may run where the jobs' folders are not
        check_writable(out / slug(located.value.name), f"--out {out}")
    if results:
        refuse_without_entries(results, located.value.name)
    request = study.Request(
        scenario=scenario,
        strategies=_names(strategies),
        seeds=seeds_of("--seeds", seeds) or tuple(located.value.seeds),
        sweep_seeds=seeds_of_sweep,
        sweep=_sweep_of(sweep, sweep_from),
        metric=metric or study.Request.metric,
        floor=floor,
        reference=reference.strip(),
        validation_shots=validation_shots,
        scenario_settings=tuple(for_scenario),
        strategy_settings=tuple(for_strategy),
    )
    if list_:
        placing = Placing(out, device=device, allow_plugins=allow_plugins, elsewhere=elsewhere)
        _list(request, placing, results)
        return
    # One that there is not is told before the plan is.
    names = [one.value.name for one in study.load_strategies(request.strategies, for_strategy)]
    replaced: list[str] = []
    if publish:
        check_writable(publish, f"--publish {publish}")
        replaced = refuse_other_streams(request, names, located.value.name, publish)
    console = log_console()

    def note(line: str) -> None:
        say(console, f"note: {line}")

    for line in replaced:
        note(line)
    progress = CompareProgress(request, jobs if cluster is None else None, partial(say, console))
    progress.plan()
    try:
        with terminated_like_interrupted():
            found = study.compare(
                request,
                out,
                jobs,
                device,
                allow_plugins,
                progress.report,
                partial(say, console),
                results or publish,
                progress.begins,
                **more,
            )
        _hand_over(found, out, console, partial(_publish, found, request, names, located, publish, note))
    except KeyboardInterrupt as stopped:
        print("interrupted; the same command goes on", file=sys.stderr)
        raise typer.Exit(exit_code_of(stopped)) from None


def _sweep_of(sweep: list[str] | None, sweep_from: str | None) -> dict[str, Any] | None:
    """Values by key; empty where each method has its own, None where nothing is swept."""
    from ..compare.trials import parse_sweep
    from ..config import load_strategy

    if sweep:
        return parse_sweep(sweep)
    if sweep_from is None or sweep_from == "strategy":
        return None if sweep_from is None else {}
    found = dict(load_strategy(sweep_from).value.sweep)
    if not found:
        raise UserError(f"--sweep-from {sweep_from}: this strategy declares no sweep")
    return found


def _publish(
    found: Comparison,
    request: Request,
    names: list[str],
    located: Located[Scenario],
    into: Path | None,
    tell: Callable[[str], None],
) -> list[Path]:
    from ..compare.publishing import alone, publish, refuse_other_streams

    if into is None:
        return []
    with alone(into, found.scenario):
        # Another comparison may have been published since this one began.
        refuse_other_streams(request, names, located.value.name, into)
        return publish(found, located, into, tell)


def _hand_over(found: Comparison, out: Path, console: Console, publish: Callable[[], list[Path]]) -> None:
    """What was found: on the disk, published, on the screen, and in a report."""
    from ..files import slug
    from ..report.comparison.saving import save
    from ..report.comparison.terminal import show

    content = found.content()
    folder = out / slug(found.scenario)
    # What took hours is on the disk before anything can go wrong with a terminal.
    written = save(content, folder)
    entries, refused = [], None
    try:
        entries = publish()
    except (UserError, OSError) as error:  # such as a full disk
        refused = error
    show(console, content)
    console.print()
    say(console, f"{folder}: {', '.join(path.name for path in written)}")
    if entries:
        say(console, f"{entries[0].parent}: {', '.join(path.name for path in entries)}")
    say_report(console, folder)
    if refused:
        raise refused
    if any(m.failed for m in found.methods):
        raise typer.Exit(1)


def _refuse(given: dict[str, object], reason: str) -> None:
    for option, value in given.items():
        if value:
            raise UserError(f"{option}: {reason}")


def _list(request: Request, placing: Placing, results: Path | None) -> None:
    """The missing runs on standard output, and what is to say about them on standard error."""
    from ..compare.listing import command_of, missing
    from ..compare.results_files import Library
    from ..compare.study import prepare

    def note(sentence: str) -> None:
        say_line(sentence, err=True)

    prepared = prepare(request, note)
    found = missing(prepared, placing.out, Library(results, prepared.scenario.value.name, prepared.plans))
    for trial in found.trials:
        print(command_of(trial, prepared, placing))
    for trial, why in found.failed:
        note(f"not listed: {trial.label()}: {why}")
    runs = counted(len(found.trials), "run")
    if found.sweep:
        note(f"{runs} of the sweep; when all are done, the same command lists the tests")
    elif found.trials:
        note(f"{runs}; when all are done, compare without --list makes the table")
    elif found.failed:
        note("nothing else is missing: compare without --list makes the table of what there is")
    else:
        note("nothing is missing: compare without --list makes the table")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UserError(f"--strategies {text}: must be names or YAML files separated by commas")
    return names
