"""A scenario's data on paper: sources opened, classes resolved, shots drawn; no pixel is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config.loading import Located
from ..config.scenario import (
    MultiLabelSet,
    ReferenceSet,
    RetrievalSet,
    Scenario,
    Task,
    ZeroShotSet,
)
from ..errors import UserError, raise_all
from ..files import write_text
from .beside_tasks import measured, own_prompts, plan_reference, plan_zero_shot
from .captions.caption_tasks import plan_captions
from .captions.multi_label_sets import plan_multi_label
from .captions.retrieval_sets import plan_retrieval
from .class_pools import by_class, spread
from .division import NO_TESTS
from .images.broken import Readable
from .images.pictures import Pictures
from .items import Source, at_key, at_source, items_at
from .kinds import open_source
from .names.tied_names import refuse_ties
from .plans import Plan, Plans
from .sampling import Draw, TooFew, draw, few_apart, listed
from .telling import counted


def plan(located: Located[Scenario], seed: int, opened: dict[str, Source] | None = None) -> Plans:
    """Resolve classes and draw shots; loads no pixels, so it also serves as the check of a scenario.

    Args:
        located: the scenario.
        seed: of the draws.
        opened: sources that a plan of the same scenario with another seed opened; what this one opens is
            added.

    Raises:
        UserError: for a missing folder, an unknown class, more shots than images, differing domain classes…
    """
    scenario, faults, idle = located.value, [], []
    opened = {} if opened is None else opened
    sections = ("tasks", "zero_shot", "retrieval", "multi_label")
    plans: dict[str, list] = {name: [] for name in (*sections, "reference")}
    entries = [((name, i), entry) for name in sections for i, entry in enumerate(getattr(scenario, name))]
    entries += [(("reference",), scenario.reference)] if scenario.reference else []
    for path, entry in entries:
        try:
            named = entry.source.model_dump_json()
            if named not in opened:
                opened[named] = _open(located, entry, path)
            source = opened[named]
            if "test_fraction" in entry.source.model_fields_set and _of(source, "divided"):
                key = (*path, "source", "test_fraction")
                idle.append(located.fault(key, "has no effect: the pictures have a test part"))
            if isinstance(entry, ReferenceSet):
                beside = _tested_beside(located, entries, opened, seed)
                made = plan_reference(located, entry, source, path, measured([*plans.values(), beside]))
            else:
                made = _MAKERS[type(entry)](located, entry, source, seed, path)
            plans[path[0]] += [made] if made is not None else []
        except UserError as error:
            faults += error.messages
        except OSError as error:  # a picture that has just gone, a folder without permission
            where = f"{error.filename}: " if error.filename else ""
            faults.append(
                located.fault((*path, "source"), f"{where}cannot be read: {error.strerror or error}")
            )
    raise_all(faults)
    retrieval = tuple(plans.pop("retrieval"))
    refuse_ties(located, {kind: [one.class_names for one in made] for kind, made in plans.items()})
    if scenario.protocol == "domain-incremental":
        _check_same_classes(located, plans["tasks"])
    # Two sources may read the same pictures: a task's and a zero-shot set's, or with other settings.
    skipped = dict.fromkeys(line for source in opened.values() for line in getattr(source, "skipped", ()))
    notes = [line for source in opened.values() for line in getattr(source, "notes", ())]
    for index, (task, made) in enumerate(zip(scenario.tasks, plans["tasks"], strict=True)):
        if not task.captioned:
            few = _few_for_validation(scenario, task, made)
            notes += [f"{made.name}: {few}"] if few else []
            untaught = _untaught(made) if task.split_file is not None else ""
            notes += [located.fault(("tasks", index, "split_file"), untaught)] if untaught else []
    notes += idle
    return Plans(
        tuple(plans["tasks"]),
        tuple(plans["zero_shot"]),
        *(plans["reference"] or [None]),
        tuple(skipped),
        tuple(dict.fromkeys(notes)),
        retrieval,
        tuple(plans["multi_label"]),
    )


def check_names_of_folders(located: Located[Scenario]) -> None:
    """Refuse class names of the zero-shot sets in folders that :func:`plan` would refuse; draws nothing.

    Raises:
        UserError: naming them.
    """
    names = [
        tuple(_open(located, one, ("zero_shot", place)).class_names) if one.source.kind == "folder" else ()
        for place, one in enumerate(located.value.zero_shot)
    ]
    refuse_ties(located, {"tasks": [], "zero_shot": names})


def _open(
    located: Located[Scenario],
    entry: Task | ZeroShotSet | RetrievalSet | MultiLabelSet | ReferenceSet,
    path: tuple,
) -> Source:
    try:
        source = open_source(entry.source, located.folder)
    except UserError as error:
        raise at_source(located, path, error) from None
    if located.value.measure == "validation" and isinstance(source, Pictures):
        source.asks_tests = False
    names = source.class_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(located.fault((*path, "source"), f"two classes are both called {twice!r}"))
    return Readable(source) if located.value.broken == "skip" else source


def _classes(located: Located[Scenario], task: Task, source: Source, path: tuple) -> list[int]:
    known = {name: label for label, name in enumerate(source.class_names)}
    if task.classes is not None:
        unknown = [name for name in task.classes if name not in known]
        if unknown:
            problem = f"no class {unknown[0]!r}; there are {_some(source.class_names)}"
            raise UserError(located.fault((*path, "classes"), problem))
        return [known[name] for name in task.classes]
    if task.class_range is not None:
        first, end = task.class_range
        if end > len(source.class_names):
            there = counted(len(source.class_names), "class", "classes")
            limit = f"ends at {end}, but the source has {there}"
            raise UserError(located.fault((*path, "class_range"), limit))
        return list(range(first, end))
    return list(range(len(source.class_names)))


def _plan_task(located: Located[Scenario], task: Task, source: Source, seed: int, path: tuple) -> Plan:
    scenario = located.value
    if task.captioned:
        return plan_captions(located, task, source, seed, path)
    chosen = _classes(located, task, source, path)
    names = tuple(source.class_names[c] for c in chosen)
    shots = scenario.shots_of(task, len(chosen))
    if len(shots) != len(chosen):
        message = f"names {counted(len(shots), 'number')} for {counted(len(chosen), 'class', 'classes')}"
        raise UserError(located.fault((*path, "shots"), message))
    drawn = _draw(located, task, source, seed, path, chosen, shots)
    tested = by_class(items_at(located, path, source, "test"), chosen)
    test = spread(tested, task.test_limit or scenario.test_limit)
    if not test:
        hint = NO_TESTS.get(task.source.kind, "")
        raise UserError(located.fault((*path, "source"), f"task '{task.name}' has no test images{hint}"))
    if scenario.measure == "validation" and not drawn.validation:
        raise UserError(located.fault((*path, "source"), f"task '{task.name}' has no validation images"))
    even = len(set(shots)) == 1
    return Plan(
        name=task.name,
        class_names=names,
        prompts=tuple(task.prompts or (own_prompts(scenario, source))),
        train=drawn.train,
        validation=drawn.validation,
        test=tuple(test),
        shots=None if task.split_file else shots[0] if even else tuple(shots),
        augment=task.augment or scenario.augment,
        source=source,
    )


def _draw(
    located: Located[Scenario],
    task: Task,
    source: Source,
    seed: int,
    path: tuple,
    chosen: Sequence[int],
    shots: Sequence[int | None],
) -> Draw:
    scenario = located.value
    training, kept = (items_at(located, path, source, part) for part in ("train", "validation"))
    if task.split_file is not None:
        listing = located.folder / Path(task.split_file).expanduser()
        try:
            return listed(listing, by_class(training, chosen))
        except UserError as error:
            raise at_key(located, (*path, "split_file"), error) from None
    sampler = task.sampler or scenario.sampler
    names = [source.class_names[c] for c in chosen]
    try:
        return draw(
            sampler, training, kept, chosen, shots, scenario.validation_shots, names, f"{seed}/{task.name}"
        )
    except TooFew as few:
        apart = scenario.validation_shots
        wanted = counted(few.shots or 1, "shot") + (f" and {apart} for validation" if apart else "")
        key = (*path, "shots") if task.shots is not None else ("shots",)
        has = f"class {names[few.label]!r} of task '{task.name}' has {counted(few.has, 'training image')}"
        hint = absent(names[few.label]) if not few.has and (absent := _of(source, "absent")) else ""
        if apart and few.has:
            asked = task.shots if task.shots is not None else scenario.shots
            # As a shell takes it; brackets, which messages have, are patterns there.
            steps = [*key, few.label] if isinstance(asked, list) else key if isinstance(asked, int) else ()
            hint = _fewer(few, apart, ".".join(map(str, steps)))
        elif few.has:
            hint = "; those for testing are not among them"
        raise UserError(located.fault(key, f"{wanted} a class, but {has}{hint}")) from None


def _untaught(made: Plan) -> str:
    """What to say of classes that a list of training images names no image of."""
    taught = {item.label for item in made.train}
    untaught = [name for label, name in enumerate(made.class_names) if label not in taught]
    return f"names no training image of {_some(untaught)}" if untaught else ""


def _few_for_validation(scenario: Scenario, task: Task, made: Plan) -> str | None:
    """What to say where the draw leaves fewer validation images than were asked for."""
    by = "split_file" if task.split_file is not None else task.sampler or scenario.sampler
    return few_apart(made.validation, made.class_names, scenario.validation_shots, by)


def _fewer(few: TooFew, apart: int, key: str) -> str:
    """Who asks for validation images, and what leaves enough of them.

    Args:
        few: what is missing.
        apart: validation images a class that were asked for.
        key: where the number of shots of the class stands; empty where it is one of a long tail.
    """
    told = "; validation_shots (--validation-shots of tune and compare) asks for those for validation"
    if few.has == 1:
        return f"{told}, and one image is too few for both"
    shots = few.shots or 1
    if shots < few.has:
        return f"{told}: --validation-shots {few.has - shots} would do"
    kept = apart if apart < few.has else 1
    fewer = f"--set {key}={few.has - kept}" if key else f"at most {counted(few.has - kept, 'shot')}"
    return f"{told}: {fewer}{f' and --validation-shots {kept}' if kept != apart else ''} would do"


def _of(source: Source, name: str) -> Any:
    """Something that only some kinds of sources have."""
    return getattr(getattr(source, "source", source), name, None)


_MAKERS = {
    Task: _plan_task,
    ZeroShotSet: plan_zero_shot,
    RetrievalSet: plan_retrieval,
    MultiLabelSet: plan_multi_label,
}


def _tested_beside(
    located: Located[Scenario], entries: Sequence[tuple[tuple, Any]], opened: dict[str, Source], seed: int
) -> list[Plan]:
    """What is tested beside the tasks, where settings are chosen on other images than those: a reference set
    that is trained on must hold none of them then either."""
    if located.value.measure != "validation":
        return []
    tests = replace(located, value=located.value.model_copy(update={"measure": "test"}))
    return [
        _MAKERS[type(entry)](tests, entry, opened[entry.source.model_dump_json()], seed, path)
        for path, entry in entries
        if isinstance(entry, ZeroShotSet | RetrievalSet | MultiLabelSet)
        and entry.source.model_dump_json() in opened
    ]


def _check_same_classes(located: Located[Scenario], plans: Sequence[Plan]) -> None:
    for position, other in enumerate(plans[1:], start=1):
        if other.class_names != plans[0].class_names:
            differing = sorted(set(other.class_names) ^ set(plans[0].class_names)) or ["their order"]
            problem = f"domain-incremental tasks share their classes; '{other.name}' and '{plans[0].name}'"
            problem += f" differ in {_some(differing)}"
            raise UserError(located.fault(("tasks", position), problem))


def _some(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def write_manifest(path: Path, chosen: Plan) -> None:
    """Write a plan's images as JSON lines, one per image."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen.manifest()))


def only_task(scenario: Located[Scenario], name: str) -> Located[Scenario]:
    """The scenario with one of its tasks alone: its draw is the same, and the other sources need not be
    there."""
    tasks = [task for task in scenario.value.tasks if task.name == name]
    if not tasks:
        raise UserError(f"{scenario.file}: has no task '{name}'")
    nothing = {"zero_shot": [], "retrieval": [], "multi_label": [], "reference": None}
    alone = scenario.value.model_copy(update={"tasks": tasks, **nothing})
    return Located(alone, scenario.file, {})
