"""A model measured: a state of a run on its own stream, or any model on other data."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from ..clip.classifier import MEASURED_AT_ONCE, ClipClassifier
from ..clip.evaluate import accuracy
from ..clip.heads.head import Head
from ..clip.model import LoadedClip
from ..config import Scenario, load_scenario
from ..config.catalog import shipped
from ..config.loading import Located
from ..config.scenario import DEFAULT_PROMPTS, Augmentation
from ..config.sources import DatasetSource, FolderSource, ManifestSource, SourceConfig, WorldSource
from ..data.discovery.found_tables import folders_or_table, is_table, table_notes
from ..data.images.cache import load_cached
from ..data.kinds import open_source
from ..data.labels import LabelSpace
from ..data.planning import Plan, Plans, plan
from ..data.registry import DATASETS
from ..data.tasks import Images, Reader, load, unread
from ..errors import UserError, printable
from ..world.source import domain_names
from .asked_sets import (
    Asked,
    CaptionSet,
    ClassSet,
    LabelledSet,
    Measured,
    Part,
    label_name,
    retrieval_name,
    together,
)
from .given_pictures import read_differently
from .model_files import classifier_of
from .predict import answering, label_space, learned_tasks, texts_tell_tasks
from .prompt_option import check_prompts
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


def stream_asked(state: State) -> list[Asked]:
    """Everything that the run measures, on paper.

    Raises:
        UserError: if the pictures are not those of the run any more.
    """
    plans, scenario = plans_of(state), state.scenario.value
    return _asked(state.loaded, plans, scenario.protocol, scenario.measure, heads=state.heads())


def asked_among_all(state: State) -> tuple[list[Asked], list[str]]:
    """The tasks that a state has learned, on paper, each picture asked about among the classes of all of
    them and without its task being told, as ``predict`` asks; and what to say of that.

    A picture is read as its task's, though, where ``predict`` reads all alike.

    Raises:
        UserError: if the pictures are not those of the run any more, of independent tasks, which have a model
            each, and where no task has classes.
    """
    learned = learned_tasks(state)
    if not learned:
        raise UserError(f"--all-classes: no task of {state.folder.root} has classes to tell apart")
    if state.scenario.value.independent and len(state.results["tasks"]) > 1:
        raise UserError(
            f"--all-classes: the tasks of {state.folder.root} are independent, and the model of one has not"
            " learned the classes of another"
        )
    space, head = label_space(state), answering(state)
    place = {name: k for k, name in enumerate(space.class_names)}
    found: list[Asked] = []
    for one in stream_asked(state):
        if isinstance(one, ClassSet) and one.name in learned:
            labels = [place[one.space.class_names[k]] for k in one.labels.tolist()]
            found.append(replace(one, labels=torch.tensor(labels, dtype=torch.long), space=space, head=head))
    notes = [told] if (told := texts_tell_tasks(head)) else []
    if read_differently(state, learned):
        notes.append(
            "the tasks' pictures are read in several ways (background, stored values): here each as its"
            " task's, by predict without --task all alike"
        )
    return found, notes


def with_recorded(state: State, found: Sequence[Measured]) -> list[Measured]:
    """What was found on a run's own stream, with what the run itself measured in the same state.

    Nothing stands beside it where results.json has no such row: of a run that was killed when a task's record
    was written and its results.json was not yet, and of one that measured nothing.
    """
    results, row = state.results, state.row
    if row >= len(results["accuracy"]):
        return list(found)
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
        # Of a file that is not there, no line can be looked up.
        place = re.compile(rf"{re.escape(printable(state.scenario.file, 4096))}:\d+: ")
        raise UserError(
            f"{state.folder.root}: its scenario {recorded}, from whose folder its data are found, is not"
            " there any more; put it and the data back, or beside the run as they were, or measure other data"
            " with --data",
            tuple(f"of that scenario: {place.sub('', message, count=1)}" for message in error.messages),
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
        data: class folders or a table (their test split, or all pictures where there is none), the name or
            YAML of a scenario (all its tasks and zero-shot sets), a domain of the embedded world, or a data
            set known by name.
        prompts: templates instead of the data's own, of everything that has classes.
        default: templates for data that bring none.

    Raises:
        UserError: for data that are not there, and for a template without a place for the class name.
    """
    check_prompts(prompts)
    named = _named_source(data)
    if named is not None:
        chosen = _all_of(data, named, prompts, default)
        return Data(Plans((), (chosen,), notes=_notes(data, named, chosen)))
    located = load_scenario(data)
    if prompts:
        located = _prompted(located, prompts)
    scenario = located.value
    plans = plan(located, scenario.seeds[0])
    own = {"prompts": tuple(prompts)} if prompts else {}
    tasks, zero_shot = (
        tuple(replace(one, **own) for one in chosen) for chosen in (plans.tasks, plans.zero_shot)
    )
    captions_and_labels = {"retrieval": plans.retrieval, "multi_label": plans.multi_label}
    held = Plans(tasks, zero_shot, notes=plans.notes, **captions_and_labels)
    return Data(held, scenario.protocol, scenario.measure, f"{scenario.name}/")


def _prompted(located: Located[Scenario], prompts: Sequence[str]) -> Located[Scenario]:
    """A scenario whose multi-label sets have other prompts, of which their compound prompts are made, too.

    Raises:
        UserError: for a scenario without classes, in which no prompt has a place.
    """
    scenario = located.value
    if not (scenario.zero_shot or scenario.multi_label or any(not one.captioned for one in scenario.tasks)):
        raise UserError(f"--prompt: {scenario.name} has pictures with captions, and no class to fill in")
    sets = [one.model_copy(update={"prompts": list(prompts)}) for one in scenario.multi_label]
    return replace(located, value=scenario.model_copy(update={"multi_label": sets}))


def data_asked(loaded: LoadedClip, data: Data) -> list[Asked]:
    """Everything that data hold, on paper."""
    return _asked(loaded, data.plans, data.protocol, data.part, data.prefix)


def told(
    classifier: ClipClassifier, asked: Sequence[Asked], found: Sequence[tuple[Part, Mapping[str, Tensor]]]
) -> list[Measured]:
    """What the answers to all parts of all sets come to."""
    by_set, rows = together(found), []
    for place, one in enumerate(asked):
        # A set without images is in no part.
        answered = by_set.get(place) or one.answer(classifier, torch.empty(0, 3, 1, 1, dtype=torch.uint8))
        rows += one.measured(classifier, answered)
    return rows


def measure(
    loaded: LoadedClip,
    sets: Sequence[MeasuredSet],
    precision: str = "fp32",
    batch_size: int = MEASURED_AT_ONCE,
) -> list[Measured]:
    """Accuracy of the model as it is on every set."""
    classifier = classifier_of(loaded, batch_size)
    with classifier.measured_in(precision):
        return [
            Measured(
                one.name,
                accuracy(classifier, one.images.pixels, one.images.labels, one.space, head=one.head),
                len(one.images),
            )
            for one in sets
        ]


def _asked(
    loaded: LoadedClip,
    plans: Plans,
    protocol: str,
    part: str,
    prefix: str = "",
    heads: Mapping[str, Head] = MappingProxyType({}),
) -> list[Asked]:
    tasks = tuple(one for one in plans.tasks if not one.captioned)
    chosen = {one.name: getattr(one, part) for one in tasks} | {one.name: one.test for one in plans.zero_shot}
    sources = {one.name: one.source for one in (*tasks, *plans.zero_shot)}
    asked: list[Asked] = [
        ClassSet(
            prefix + one.name,
            sources[one.name],
            tuple(chosen[one.name]),
            one.images.labels,
            one.space,
            heads.get(one.name),
        )
        for one in _load_sets(loaded, plans, protocol, part, unread)
    ]
    captioned = plans.measured_captions(part)
    asked += [CaptionSet(prefix + one.name, one.source, one.test, one) for one in captioned]
    return asked + [LabelledSet(prefix + one.name, one.source, one.test, one) for one in plans.multi_label]


def _load_sets(
    loaded: LoadedClip, plans: Plans, protocol: str, part: str, read: Reader = load_cached
) -> list[MeasuredSet]:
    """The ``part`` of every task, and every zero-shot set; no other picture is loaded."""
    unused: dict[str, tuple] = {name: () for name in ("train", "validation", "test") if name != part}
    tasks = tuple(replace(one, **unused) for one in plans.tasks if not one.captioned)
    data = load(Plans(tasks, plans.zero_shot), protocol, loaded.pixels, read=read)
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
    if not data:  # of a shell's variable that is not set: it would be the folder that one is in
        raise UserError("--data '': must not be empty")
    path = Path(os.path.expanduser(data))
    if kind is not None and path.is_dir():
        raise UserError(f"--data {data}: is a {kind}, and a folder here; write ./{data} for the folder")
    if path.is_dir():
        return folders_or_table(path, test_fraction=1.0)
    if kind == "scenario" or path.suffix in (".yaml", ".yml"):
        return None
    if kind is None and is_table(path):
        return ManifestSource(kind="manifest", file=str(path.resolve()), test_fraction=1.0)
    if kind is None and path.is_file():
        raise UserError(
            f"--data {data}: is a file; give a folder of class folders, a table (.csv, .tsv or .jsonl) that"
            " names the class of every picture, or the YAML of a scenario"
        )
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
        name=_name(data, named),
        class_names=tuple(names),
        prompts=tuple(prompts or source.prompts or default),
        train=(),
        validation=(),
        test=tuple(items),
        shots=0,
        augment=Augmentation(),
        source=source,
    )


def _name(data: str, named: SourceConfig) -> str:
    path = Path(os.path.expanduser(data)).resolve()
    if isinstance(named, FolderSource | ManifestSource):
        return path.name if path.is_dir() else path.stem
    return data


def _notes(data: str, named: SourceConfig, chosen: Plan) -> tuple[str, ...]:
    """What was passed over, and what was taken for what, of a source whose test pictures were listed."""
    folder, notes = Path(os.path.expanduser(data)), list(getattr(chosen.source, "notes", ()))
    if folder.is_dir():
        notes += table_notes(chosen.name, folder, named, chosen.class_names, Path("."))
    return tuple(notes)
