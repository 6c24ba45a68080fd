"""Whether a strategy can learn a stream, and which of its settings do nothing there: what is told without a
model, and of two files with one where it is at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..config import Scenario, Strategy
from ..config.loading import Located
from ..config.parts_together import of_earlier_tasks
from ..data.planning import Plans
from ..errors import UserError
from .by_shots import shots_of
from .captions_fit import check_captions

if TYPE_CHECKING:
    from ..clip.classifier import ClipClassifier


def check_pair(
    scenario: Scenario, strategy: Located[Strategy], plans: Plans, model: ClipClassifier | None = None
) -> list[str]:
    """What :func:`check_stream` tells of two files; a plugin of the user's own is left out, its code not run.

    Args:
        scenario, strategy: as loaded.
        plans: of the scenario.
        model: of the scenario, to find out as well whether the strategy finds in it what it needs.

    Returns:
        A line for every setting that does nothing, and for what is odd with this model.

    Raises:
        UserError: where the strategy cannot learn the stream, or does not fit the model.
    """
    ours = strategy.value.model_copy(update={"plugin": None})
    if model is not None:
        from ..engine.build import build_parts

        parts = build_parts(ours, model, 0, None, scenario.shares_labels)
        return parts.notes + check_stream(scenario, ours, plans, parts.head, parts.plugins)
    if not any(plan.captioned for plan in plans.tasks):
        return check_stream(scenario, ours, plans, None, ours.regularisers)
    # What asks for classes is known by the parts themselves, which bring torch.
    from ..engine.build import build_adapter, build_head, build_plugins

    head = build_head(ours.head, 0, scenario.shares_labels)
    plugins = build_plugins(ours, build_adapter(ours.adapter, 0), 0, strategy.folder, head)
    return check_stream(scenario, ours, plans, head, plugins)


def check_stream(
    scenario: Scenario, strategy: Strategy, plans: Plans, head: Any, plugins: Sequence[Any]
) -> list[str]:
    """Refuse a strategy that cannot learn a stream.

    Args:
        scenario, strategy: that are to be run together.
        plans: of the stream.
        head, plugins: of the strategy, as they were built; of regularisers their settings do, where no task
            has captions.

    Returns:
        A line for every setting that does nothing on a stream like this one.

    Raises:
        UserError: naming the setting, and what the scenario lacks or has.
    """
    check_captions(scenario, strategy, plans, head, plugins)
    if scenario.independent and strategy.training.stream != "sequential":
        raise UserError(
            f"strategy '{strategy.name}': training.stream: {strategy.training.stream} trains tasks "
            f"together, which scenario '{scenario.name}' (independent: true) keeps apart"
        )
    _check_counts(scenario, strategy, plans)
    if plans.reference is None and any(getattr(one, "needs_reference", False) for one in plugins):
        raise UserError(
            f"scenario '{scenario.name}' has no reference set, which strategy '{strategy.name}' needs; "
            "add reference: {source: …, images: …} to the scenario"
        )
    return list(_idle(scenario, strategy))


def _check_counts(scenario: Scenario, strategy: Strategy, plans: Plans) -> None:
    """Where a loss asks how many training images a class has, every contrasted class needs one."""
    training = strategy.training
    if not training.loss.counts:
        return
    told = f"strategy '{strategy.name}': training.loss: {training.loss.kind}"
    alone = training.stream == "sequential" and strategy.loss_classes == "seen"
    if scenario.protocol == "class-incremental" and alone:
        raise UserError(
            f"{told} asks how many training images every class has, and with training.classes: seen a "
            f"task of scenario '{scenario.name}' (class-incremental) has none of earlier tasks' classes; "
            "set training.classes: task"
        )
    for plan in plans.tasks:
        counts = zip(plan.class_names, shots_of(plan), strict=True)
        missing = [name for name, count in counts if not count]
        if missing:
            raise UserError(
                f"{told} needs a training image of every class; task '{plan.name}' has none of {missing[0]}"
            )


def _idle(scenario: Scenario, strategy: Strategy) -> Iterator[str]:
    if scenario.protocol != "class-incremental":
        has_drift = strategy.head is not None and "drift" in strategy.head.model_fields_set
        idle = {"training.classes: seen": strategy.training.classes == "seen", "head.drift": has_drift}
        for setting in (name for name, said in idle.items() if said):
            yield f"{setting} has no effect on a {scenario.protocol} stream, only on class-incremental ones"
    if scenario.independent:
        memory = ["memory"] if strategy.memory is not None else []
        for setting in (*memory, *of_earlier_tasks(strategy.adapter, strategy.regularisers)):
            yield f"{setting} has no effect on independent tasks, none of which has earlier ones"
    elif any(part.kind == "lwf" for part in strategy.regularisers):
        why = "every task has images of all classes that there are"
        if scenario.protocol == "domain-incremental":
            yield f"lwf has no effect on a domain-incremental stream: {why}"
        elif strategy.training.stream == "cumulative":
            yield f"lwf has no effect with training.stream: cumulative: {why}"
