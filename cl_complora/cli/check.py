"""cl-complora check: are files as they should be, and does the model know anything of the pictures?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError, raise_all
from .model_options import Model, ModelConfig, Pretrained, model_settings
from .output import say_line

if TYPE_CHECKING:
    from ..config.loading import Located
    from ..config.scenario import Scenario
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
) -> None:
    """Check scenario and strategy files: keys, values, folders, classes, shots, the model's name. Writes
    nothing."""
    settings = model_settings(model, model_config, pretrained)
    faults: list[str] = []
    for file in files:
        try:
            for line in check_file(file, settings, measure):
                say_line(line)
        except UserError as error:
            faults += error.messages
    raise_all(faults)


def check_file(file: str, settings: list[str], measure: bool | None = None) -> Iterator[str]:
    """What there is to tell of a scenario or strategy that is fine.

    Args:
        file: path or name.
        settings: overrides of a scenario's model.
        measure: whether to measure the model; None where options name it and its weights are there.

    Raises:
        UserError: for one that is not fine.
    """
    from ..config import load_scenario, load_strategy
    from ..config.catalog import shipped
    from ..config.loading import read_yaml
    from ..config.which_file import kind_of

    is_strategy = file in shipped("strategy") and file not in shipped("scenario")
    path = Path(file)
    if path.is_file():
        data, _ = read_yaml(path, file)
        is_strategy = kind_of(data) == "strategy"
    if is_strategy:
        if settings or measure:
            options = "--model, --model-config, --pretrained and --measure"
            raise UserError(f"{file}: {options} are for scenarios")
        found = load_strategy(file).value
        yield f"{file}: strategy '{found.name}' is fine ({found.adapter.kind} adapter)"
        if found.plugin:
            yield (
                f"  note: plugin {found.plugin} was not looked at (its code is not run by check); run wants"
                " --allow-plugins"
            )
        return
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
    yield f"{file}: scenario '{located.value.name}' is fine ({size})"
    yield from (f"  skipped: {line}" for line in plans.skipped)
    yield from (f"  note: {line}" for line in on_paper(located, plans))
    if (model := located.value.model).pretrained is None and not brings_weights(model):
        yield "  note: no weights are named (model.pretrained, --pretrained), so that they are random"
    here = is_here(located)
    if measure or (measure is None and settings and here):
        yield from _measured(located, plans)
        return
    if note := unstated(located.value.model, located.folder):
        yield f"  note: {note}"
    if measure is None and settings and not here:
        yield "  the model was not measured: --measure fetches its weights and measures it"


def _measured(located: Located[Scenario], plans: Plans) -> Iterator[str]:
    from ..run.untouched import look

    told, warnings = look(located, plans)
    yield from (f"  {line}" for line in told)
    yield from warnings
