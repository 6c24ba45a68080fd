"""The command line: a thin shell over the library. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import MOST_CHARACTERS, UserError, printable, raise_all, reason
from ..files import is_utf8
from ..run.devices import known_device
from ..run.failures import says_too_little
from ..run.spinning import bound_spinning
from ..version import __version__
from .audit import audit
from .check import check
from .choices import list_
from .compare import compare
from .consoles import log_console
from .curvature import curvature
from .data import data
from .explain import explain
from .finished import evaluate, export, predict
from .help_pages import HelpfulCommand, HelpfulGroup
from .home import any_home
from .init import init
from .leaderboard import leaderboard
from .model_options import Model, ModelConfig, Pretrained, model_settings
from .odd_words import odd_name, refuse_odd_words
from .options import AllowPlugins, Device, Elsewhere, Log, Out, Settings, say
from .output import lasting_streams
from .regions import regions
from .report import report, say_report
from .tensorboard import tensorboard
from .tune import tune

app = typer.Typer(
    cls=HelpfulGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help=(
        "Continual few-shot learning of CLIP: run a stream of tasks, follow forgetting and zero-shot"
        " retention. First steps: docs/tutorial.md."
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cl-complora {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(cls=HelpfulCommand)
def run(
    scenario: Annotated[str, typer.Argument(help="Name of a shipped scenario, or a YAML file.")] = "embedded",
    strategy: Annotated[
        str, typer.Option("--strategy", "-s", help="Name of a shipped strategy, or a YAML file.")
    ] = "complora",
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of shots, order, initialisation and augmentation.")
    ] = 0,
    model: Model = None,
    model_config: ModelConfig = None,
    pretrained: Pretrained = None,
    device: Device = "auto",
    out: Out = Path("runs"),
    set_: Settings = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over; an existing run is kept aside.")
    ] = False,
    allow_plugins: AllowPlugins = False,
    analysis: Annotated[
        bool, typer.Option(help="Follow what every task does to weights and features; changes no result.")
    ] = True,
    log: Log = None,
    save_every: Annotated[
        float,
        typer.Option(
            min=0.0, help="Seconds between two saves within a task, which an interrupted run goes on from."
        ),
    ] = 60.0,
    elsewhere: Elsewhere = False,
    variant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=(
                "Keep this run apart from others of the strategy with other settings, in a folder of that"
                " name."
            ),
        ),
    ] = None,
) -> None:
    """Run one scenario with one strategy and print what was learned, forgotten and retained."""
    from ..config import load_scenario, load_strategy
    from ..config.overrides import refuse_what_a_run_does_not_read, split_overrides

    for_scenario, for_strategy = split_overrides(set_ or [])
    refuse_what_a_run_does_not_read(for_scenario, for_strategy)
    # --set last: what a model brings may be set to something else.
    for_scenario = [*model_settings(model, model_config, pretrained), *for_scenario]
    located, chosen = load_scenario(scenario, for_scenario), load_strategy(strategy, for_strategy)
    known_device(device)
    if log:
        from ..report.trackers import check_trackers

        check_trackers(log)

    from ..config.model_names import check_model
    from ..data.planning import plan

    raise_all(check_model(located))

    plans = plan(located, seed)  # wrong data is told before torch is even imported
    console = log_console()
    say(console, _planned(located.value.name, chosen.value.name, seed, [one.name for one in plans.tasks]))

    from ..progress import display
    from ..run.signals import Stopped
    from ..run.stream import run as run_one
    from ..store.folder import RunDir

    try:
        with display(console) as progress:
            finished = run_one(
                located,
                chosen,
                seed,
                out,
                device,
                fresh,
                progress,
                allow_plugins=allow_plugins,
                analysis=analysis,
                save_every=save_every,
                elsewhere=elsewhere,
                variant=variant or "",
                log=log or (),
                plans=plans,
            )
    except Stopped as stopped:
        # With --fresh it would set aside what this one did, and begin again.
        same = "the same command without --fresh" if fresh else "the same command"
        print(f"interrupted; {same} goes on where this one stopped", file=sys.stderr)
        raise typer.Exit(stopped.exit_code) from None
    except KeyboardInterrupt:  # before anything was begun
        raise typer.Exit(130) from None
    # Not before: what draws takes a second to load.
    from ..analysis.paired import paired_changes
    from ..report.run.tables import show

    folder, results = RunDir(finished.folder), finished.results
    show(console, results, folder.learned_in(len(results["tasks"])), paired_changes(folder, results))
    took = (
        f"{finished.seconds:.0f} s" if finished.reused < len(finished.results["tasks"]) else "found finished"
    )
    console.print(
        f"\n{took} · {finished.results['device']} · {finished.folder}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    say_report(console, finished.folder)


def _planned(scenario: str, strategy: str, seed: int, tasks: list[str]) -> str:
    """What is going to be run, said before the imports that take long."""
    shown = ", ".join(tasks[:12]) + (", …" if len(tasks) > 12 else "")
    return f"{scenario} · {strategy} · seed {seed}: {len(tasks)} task{'s' * (len(tasks) != 1)} ({shown})"


_COMMANDS = {
    "check": check,
    "list": list_,
    "compare": compare,
    "leaderboard": leaderboard,
    "tune": tune,
    "eval": evaluate,
    "export": export,
    "predict": predict,
    "explain": explain,
    "audit": audit,
    "curvature": curvature,
    "regions": regions,
    "report": report,
    "init": init,
    "tensorboard": tensorboard,
}
for _name, _command in _COMMANDS.items():
    app.command(_name, cls=HelpfulCommand)(_command)
app.add_typer(data, name="data")


def main() -> None:
    """Entry point: user errors become one line each on stderr and exit code 2."""
    bound_spinning()
    with lasting_streams(), any_home():
        _answer()


def _answer() -> None:
    try:
        refuse_odd_words(sys.argv[1:])
        app(standalone_mode=True, prog_name="cl-complora")
    except UserError as error:
        for message in error.messages:
            print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
    except UnicodeEncodeError as error:
        # A name that Python could not decode, which came from the file system and not from the command.
        if is_utf8(error.object):
            raise
        print(f"error: {printable(odd_name(error.object), MOST_CHARACTERS)}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not says_too_little(error):
            raise
        advice = "measure fewer images at a time (evaluation.batch_size of a scenario, --batch-size of eval)"
        told = f"error: too little memory ({reason(error)}); {advice}, or take another device"
        print(printable(told, MOST_CHARACTERS), file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        # A full disk, a folder without permission: not a mistake in the input, and nothing that a traceback
        # explains.
        told = f"error: {error.filename or 'the system'}: {error.strerror or error}"
        print(printable(told, MOST_CHARACTERS), file=sys.stderr)
        sys.exit(1)
