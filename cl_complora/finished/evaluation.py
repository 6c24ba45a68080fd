"""A model measured: a state of a run on its own stream, or any model on other data."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..clip.evaluate import accuracy, image_features
from ..clip.heads.head import Head
from ..clip.label_scores import compound_tokens, precisions
from ..clip.model import LoadedClip
from ..clip.retrieval import ranks, text_features
from ..config import load_scenario
from ..config.catalog import shipped
from ..config.scenario import DEFAULT_PROMPTS, Augmentation
from ..config.sources import DatasetSource, FolderSource, SourceConfig, WorldSource
from ..data.kinds import open_source
from ..data.labels import LabelSpace
from ..data.multi_label_sets import MultiLabelPlan
from ..data.planning import Plan, Plans, plan
from ..data.registry import DATASETS
from ..data.retrieval_sets import CaptionPlan
from ..data.tasks import Images, load, load_captions, load_labelled
from ..errors import UserError
from ..metrics import recall_at
from ..store.forms import DIRECTIONS, PRECISIONS, RECALLS, TRANSDUCTIVE
from ..world.source import domain_names
from .model_files import classifier_of
from .states import State


@dataclass(frozen=True)
class MeasuredSet:
    """Images to measure on.

    Attributes:
        name: of the task or zero-shot set.
        images: with labels.
        space: classes to choose among.
        head: what answers in place of the texts.
    """

    name: str
    images: Images
    space: LabelSpace
    head: Head | None = None


@dataclass(frozen=True)
class Measured:
    """Accuracy on one data set, R@k of a retrieval set, or mAP of a multi-label set.

    Attributes:
        name: of the task, set or folder.
        accuracy: fraction.
        images: how many.
        recorded: what the run itself measured in the same state; None where it did not.
        share: whether it is a share of the images, as mAP is not.
    """

    name: str
    accuracy: float
    images: int
    recorded: float | None = None
    share: bool = True


def measure_stream(state: State, as_recorded: bool) -> list[Measured]:
    """Every task, zero-shot set, retrieval set and multi-label set of the run's own scenario.

    Args:
        state: the state.
        as_recorded: whether the run measured this very state (no task left out or scaled).

    Raises:
        UserError: if the pictures are not those of the run any more.
    """
    plans = plans_of(state)
    found = measure(state.loaded, _sets_of(state, plans))
    found += measure_captions(state.loaded, plans.measured_captions(state.scenario.value.measure))
    found += measure_labelled(state.loaded, plans.multi_label)
    if not as_recorded:
        return found
    results, row = state.results, state.row
    recorded = dict(zip(results["tasks"], results["accuracy"][row], strict=True))
    recorded |= {name: curve[row] for name, curve in results["zero_shot"].items()}
    recorded |= {
        retrieval_name(name, direction, told): values[row]
        for name, both in results.get("retrieval", {}).items()
        for direction, shares in both.items()
        for told, values in shares.items()
    }
    recorded |= {
        label_name(name, scorer): values[row]
        for name, curves in results.get("multi_label", {}).items()
        for scorer, values in curves.items()
    }
    return [replace(one, recorded=recorded[one.name]) for one in found]


def sets_of(state: State) -> list[MeasuredSet]:
    """Every task and zero-shot set of the run's own scenario, with the part of its images that the run
    measured.

    Raises:
        UserError: if the pictures are not those of the run any more.
    """
    return _sets_of(state, plans_of(state))


def plans_of(state: State) -> Plans:
    """The images of the run's own scenario, as they were when it was made.

    Raises:
        UserError: if they are others now, or gone.
    """
    try:
        plans = plan(state.scenario, state.results["seed"])
    except UserError as error:
        recorded = Path(state.config["files"]["scenario"])
        if Path(state.scenario.file).is_file():
            raise
        raise UserError(
            f"{state.folder.root}: its scenario {recorded}, from whose folder its data are found, is not"
            " there any more; put it and the data back, or beside the run as they were, or measure other data"
            " with --data",
            error.messages,
        ) from None
    for chosen in (*plans, *plans.beside):
        if chosen.sha256() != state.config["splits"].get(chosen.name):
            raise UserError(f"'{chosen.name}' has other pictures now than when {state.folder.root} was made")
    return plans


def _sets_of(state: State, plans: Plans) -> list[MeasuredSet]:
    scenario = state.scenario.value
    sets, heads = _load_sets(state.loaded, plans, scenario.protocol, scenario.measure), state.heads()
    return [replace(one, head=heads.get(one.name)) for one in sets]


@dataclass(frozen=True)
class Data:
    """What ``--data`` names, on paper: no picture loaded yet.

    Attributes:
        plans: tasks and zero-shot sets to measure.
        protocol: of the scenario that they come from.
        part: images of the tasks to measure on, ``test`` or ``validation``.
        prefix: before the name of each, where they come from a scenario.
    """

    plans: Plans
    protocol: str = "task-incremental"
    part: str = "test"
    prefix: str = ""


def find_data(data: str, prompts: Sequence[str] = (), default: Sequence[str] = DEFAULT_PROMPTS) -> Data:
    """Data that a model can be measured on.

    Args:
        data: class folders (their test split, or all pictures where there is none), the name or YAML of a
            scenario (all its tasks and zero-shot sets), a domain of the embedded world, or a data set known
            by name.
        prompts: templates instead of the data's own.
        default: templates for data that bring none.

    Raises:
        UserError: for data that are not there, and for a template without a place for the class name.
    """
    for template in prompts:
        if template.count("{}") != 1:
            raise UserError(f"--prompt {template!r}: must hold {{}} once, where the class name goes")
    named = _named_source(data)
    if named is not None:
        return Data(Plans((), (_all_of(data, named, prompts, default),)))
    located = load_scenario(data)
    scenario = located.value
    plans = plan(located, scenario.seeds[0])
    own = {"prompts": tuple(prompts)} if prompts else {}
    tasks, zero_shot = (
        tuple(replace(one, **own) for one in chosen) for chosen in (plans.tasks, plans.zero_shot)
    )
    held = Plans(tasks, zero_shot, retrieval=plans.retrieval, multi_label=plans.multi_label)
    return Data(held, scenario.protocol, scenario.measure, f"{scenario.name}/")


def measure_data(loaded: LoadedClip, data: Data) -> list[Measured]:
    """A model on data that no run of it needs to know."""
    found = measure(loaded, _load_sets(loaded, data.plans, data.protocol, data.part))
    found += measure_captions(loaded, data.plans.measured_captions(data.part))
    found += measure_labelled(loaded, data.plans.multi_label)
    return [replace(one, name=f"{data.prefix}{one.name}") for one in found]


def measure(loaded: LoadedClip, sets: Sequence[MeasuredSet]) -> list[Measured]:
    """Accuracy of the model as it is on every set."""
    classifier = classifier_of(loaded)
    return [
        Measured(
            one.name,
            accuracy(classifier, one.images.pixels, one.images.labels, one.space, head=one.head),
            len(one.images),
        )
        for one in sets
    ]


def measure_captions(loaded: LoadedClip, plans: Sequence[CaptionPlan]) -> list[Measured]:
    """R@1, R@5 and R@10 of the model as it is on every retrieval set, both ways; ``images`` are queries."""
    classifier, found = classifier_of(loaded), []
    for one in load_captions(plans, loaded.pixels).values():
        tokens = classifier.text.tokenizer(list(one.plan.captions))
        both = ranks(
            image_features(classifier, one.pixels), text_features(classifier, tokens), one.plan.owners
        )
        for direction, placed in zip(DIRECTIONS, both, strict=True):
            for told, k in RECALLS.items():
                name = retrieval_name(one.plan.name, direction, told)
                found.append(Measured(name, recall_at(placed, k), len(placed)))
    return found


def measure_labelled(loaded: LoadedClip, plans: Sequence[MultiLabelPlan]) -> list[Measured]:
    """mAP of the model as it is on every multi-label set, by every scorer that there is."""
    classifier, found = classifier_of(loaded), []
    for one in load_labelled(plans, loaded.pixels).values():
        tokens = compound_tokens(classifier, one.plan)
        values = precisions(classifier, one.pixels, one.plan, tokens)
        for scorer, value in zip(PRECISIONS, values, strict=True):
            if value == value:
                name, images = label_name(one.plan.name, scorer), len(one.plan.test)
                found.append(Measured(name, value, images, share=False))
    return found


def label_name(name: str, scorer: str) -> str:
    """``voc, mAP`` or ``voc, mAP normalised (transductive)``."""
    told = scorer.replace("_sparc", " SPARC").replace("_", " ")
    return f"{name}, {told}" + (" (transductive)" if scorer in TRANSDUCTIVE else "")


def retrieval_name(name: str, direction: str, told: str) -> str:
    """``captions, image to text R@1``."""
    return f"{name}, {direction.replace('_', ' ')} {told}"


def _load_sets(loaded: LoadedClip, plans: Plans, protocol: str, part: str) -> list[MeasuredSet]:
    """The ``part`` of every task, and every zero-shot set; no other picture is loaded."""
    unused: dict[str, tuple] = {name: () for name in ("train", "validation", "test") if name != part}
    tasks = tuple(replace(one, **unused) for one in plans.tasks if not one.captioned)
    data = load(Plans(tasks, plans.zero_shot), protocol, loaded.pixels)
    return [
        *(MeasuredSet(task.name, getattr(task, part), task.space) for task in data.tasks),
        *(MeasuredSet(name, images, space) for name, (images, space) in data.zero_shot.items()),
    ]


def _named_source(data: str) -> SourceConfig | None:
    """What ``--data`` names; None for a scenario.

    Raises:
        UserError: listing what there is, for a name of nothing; for a folder with the name of something else.
    """
    scenarios, domains = shipped("scenario"), domain_names()
    kinds = {"scenario": scenarios, "world domain": domains, "data set": DATASETS}
    kind = next((kind for kind, names in kinds.items() if data in names), None)
    path = Path(os.path.expanduser(data))
    if kind is not None and path.is_dir():
        raise UserError(f"--data {data}: is a {kind}, and a folder here; write ./{data} for the folder")
    if path.is_dir():
        return FolderSource(kind="folder", root=str(path.resolve()), test_fraction=1.0)
    if kind == "scenario" or path.suffix in (".yaml", ".yml"):
        return None
    if kind is None:
        close = difflib.get_close_matches(data, [name for names in kinds.values() for name in names], n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        lists = "; ".join(f"{kind}s: {', '.join(names)}" for kind, names in kinds.items())
        raise UserError(f"--data {data}: there is no such folder, and nothing of that name{hint}; {lists}")
    if kind == "world domain":
        return WorldSource(kind="world", domain=data)
    return DatasetSource(kind="dataset", name=data)


def _all_of(data: str, named: SourceConfig, prompts: Sequence[str], default: Sequence[str]) -> Plan:
    """Every test picture of a source, as a zero-shot set."""
    source = open_source(named, Path("."))
    items, names = source.items("test"), source.class_names
    if not items:
        divided = any((Path(data) / split).is_dir() for split in ("train", "test"))
        raise UserError(f"{data}: holds no {'test ' if divided else ''}pictures")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{data}: two classes are both called {twice!r}")
    return Plan(
        name=Path(os.path.expanduser(data)).resolve().name if isinstance(named, FolderSource) else data,
        class_names=tuple(names),
        prompts=tuple(prompts or source.prompts or default),
        train=(),
        validation=(),
        test=tuple(items),
        shots=0,
        augment=Augmentation(),
        source=source,
    )
