"""cl-complora check: are files as they should be, and does the model know anything of the pictures?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError, raise_all
from .model_options import Model, ModelConfig, Pretrained, model_settings
from .options import Settings
from .output import say_line

if TYPE_CHECKING:
    from ..clip.classifier import ClipClassifier
    from ..config.loading import Located
    from ..config.scenario import Scenario
    from ..config.strategy import Strategy
    from ..data.planning import Plans


def check(
    files: Annotated[list[str], typer.Argument(help="Scenario or strategy files, or names.")],
    model: Model = None,
    model_config: ModelConfig = None,
    pretrained: Pretrained = None,
    measure: Annotated[
        bool | None,
        typer.Option(
            "--measure/--no-measure",
            help="Load the model and measure it, untouched, on a few pictures of every set; by default where"
            " one of the options above names a model whose weights are on this machine.",
        ),
    ] = None,
    set_: Settings = None,
) -> None:
    """Check scenario and strategy files: keys, values, folders, classes, shots, the model's name, and whether
    the strategies can learn the scenarios' streams and, with a model that is measured, fit it. Writes
    nothing."""
    from ..config.overrides import split_overrides

    changed, for_strategy = split_overrides(set_ or [])
    named = model_settings(model, model_config, pretrained)
    kinds = {file: kind_of_file(file) for file in files}
    if None not in kinds.values():
        asked = {"scenario": named or changed or measure, "strategy": for_strategy}
        raise_all([_nothing_of(kind) for kind in asked if asked[kind] and kind not in kinds.values()])
    # --set last: what a model brings may be set to something else.
    for_scenario = [*named, *changed]
    measure = False if measure is None and not named else measure
    strategies: list[Located[Strategy]] = []
    faults: dict[str, Sequence[str]] = dict.fromkeys(files, ())
    of_pairs: list[str] = []
    # Strategies first: no more than one scenario's model is held to try them with.
    for file, kind in sorted(kinds.items(), key=lambda item: item[1] != "strategy"):
        try:
            if kind == "strategy":
                strategies.append(check_strategy(file, for_strategy))
            else:
                of_pairs += _faults_with(strategies, *check_scenario(file, for_scenario, measure))
        except UserError as error:
            faults[file] = error.messages
    raise_all([*chain.from_iterable(faults.values()), *of_pairs])


def _faults_with(
    strategies: Sequence[Located[Strategy]],
    scenario: Located[Scenario],
    plans: Plans,
    model: ClipClassifier | None,
) -> list[str]:
    faults: list[str] = []
    for strategy in strategies:
        try:
            check_together(scenario, plans, strategy, model)
        except UserError as error:
            faults += error.messages
    return faults


def kind_of_file(file: str) -> str | None:
    """``scenario`` or ``strategy``; None for a file that does not tell, which is read as a scenario and
    refused as one."""
    from ..config.catalog import shipped
    from ..config.loading import read_yaml
    from ..config.which_file import kind_of

    path = Path(file)
    if not os.path.isfile(path):
        is_strategy = file in shipped("strategy") and file not in shipped("scenario")
        return "strategy" if is_strategy else "scenario"
    try:
        return kind_of(read_yaml(path, file)[0])
    except UserError:
        return None


def _nothing_of(kind: str) -> str:
    options = {
        "scenario": "--model, --model-config, --pretrained, --measure and --set of a scenario's keys are",
        "strategy": "--set of a strategy's keys is",
    }
    return f"no {kind} is checked: {options[kind]} for those"


def check_strategy(file: str, settings: Sequence[str] = ()) -> Located[Strategy]:
    """Tell of a strategy that is fine.

    Args:
        file: path or name.
        settings: overrides.

    Raises:
        UserError: for one that is not fine.
    """
    from ..config import load_strategy

    located = load_strategy(file, settings)
    found = located.value
    say_line(f"{file}: strategy '{found.name}' is fine ({found.adapter.kind} adapter)")
    if found.plugin:
        say_line(
            f"  note: plugin {found.plugin} was not looked at (its code is not run by check); run wants"
            " --allow-plugins"
        )
    return located


def check_together(
    scenario: Located[Scenario],
    plans: Plans,
    strategy: Located[Strategy],
    model: ClipClassifier | None,
) -> None:
    """Tell which settings of a strategy do nothing on a scenario's stream.

    Args:
        scenario, strategy: that are fine each.
        plans: of the scenario.
        model: of the scenario, if it was measured.

    Raises:
        UserError: where the strategy cannot learn the stream, or does not fit the model.
    """
    from ..run.stream_fit import check_pair

    with strategy.at_its_line():
        told = check_pair(scenario.value, strategy, plans, model)
    name = strategy.value.name
    for line in told:
        line = line.removeprefix(f"strategy '{name}': ")
        say_line(f"  note: '{name}' on '{scenario.value.name}': {line}")


def check_scenario(
    file: str, settings: Sequence[str] = (), measure: bool | None = False
) -> tuple[Located[Scenario], Plans, ClipClassifier | None]:
    """Tell of a scenario that is fine, with the images that it plans, and with the model if it is measured.

    Args:
        file: path or name.
        settings: overrides.
        measure: whether to measure the model; None where its weights are on this machine.

    Raises:
        UserError: for one that is not fine.
    """
    from ..config import load_scenario
    from ..config.model_names import brings_weights, check_model, is_here
    from ..config.normalisation import unstated
    from ..data.checks.plausibility import on_paper
    from ..data.planning import plan
    from ..data.telling import counted

    located = load_scenario(file, settings)
    raise_all(check_model(located))
    plans = plan(located, located.value.seeds[0])
    images = counted(sum(len(p.train) for p in plans.tasks), "training image")
    size = f"{counted(len(plans.tasks), 'task')}, {images}"
    say_line(f"{file}: scenario '{located.value.name}' is fine ({size})")
    for line in plans.skipped:
        say_line(f"  skipped: {line}")
    for line in on_paper(located, plans):
        say_line(f"  note: {line}")
    if (model := located.value.model).pretrained is None and not brings_weights(model):
        say_line("  note: no weights are named (model.pretrained, --pretrained), so that they are random")
    if measure or (measure is None and is_here(located)):
        from ..run.untouched import look

        untouched, told, warnings = look(located, plans)
        for line in [*(f"  {line}" for line in told), *warnings]:
            say_line(line)
        return located, plans, untouched
    if note := unstated(located.value.model, located.folder):
        say_line(f"  note: {note}")
    if measure is None:
        say_line("  the model was not measured: --measure fetches its weights and measures it")
    return located, plans, None
