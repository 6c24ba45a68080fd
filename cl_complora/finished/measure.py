"""A state of a run measured again: on its own stream, or on other class folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..clip.evaluate import accuracy
from ..config.source import FolderSource
from ..data.labels import LabelSpace
from ..data.planning import plan
from ..data.sources import open_source
from ..data.stream import load
from ..errors import UserError
from .states import State


@dataclass(frozen=True)
class Measured:
    """Accuracy on one data set.

    Attributes:
        name: of the task, zero-shot set or folder.
        accuracy: fraction.
        images: how many.
        recorded: what the run itself measured in the same state; None where it did not.
    """

    name: str
    accuracy: float
    images: int
    recorded: float | None = None


def measure_stream(state: State, as_recorded: bool) -> list[Measured]:
    """Every task and zero-shot set of the run's own scenario.

    Args:
        state: the state.
        as_recorded: whether the run measured this very state (no task left out or scaled).

    Raises:
        UserError: if the pictures are not those of the run any more.
    """
    plans = plan(state.scenario, state.results["seed"])
    for chosen in plans:
        if chosen.sha256() != state.config["splits"].get(chosen.name):
            raise UserError(f"'{chosen.name}' has other pictures now than when {state.folder.root} was made")
    data = load(plans, state.scenario.value.protocol, state.loaded.pixels)
    classifier, results, row = state.classifier(), state.results, len(state.after)
    found = []
    for column, task in enumerate(data.tasks):
        part = task.test if state.scenario.value.measure == "test" else task.validation
        share = accuracy(classifier, part.pixels, part.labels, task.space)
        found.append(Measured(task.name, share, len(part), results["accuracy"][row][column] if as_recorded else None))
    for name, (images, space) in data.zero_shot.items():
        share = accuracy(classifier, images.pixels, images.labels, space)
        found.append(Measured(name, share, len(images), results["zero_shot"][name][row] if as_recorded else None))
    return found


def measure_folder(state: State, root: Path, prompts: Sequence[str] = ()) -> Measured:
    """Class folders of any kind: their test split, or all of them where there is none.

    Raises:
        UserError: for a folder without classes or pictures.
    """
    import torch

    divided = (root / "test").is_dir() or (root / "train").is_dir()
    source = open_source(FolderSource(kind="folder", root=str(root.resolve()), test_fraction=1.0), Path("."))
    items = source.items("test")
    if not items:
        raise UserError(f"{root}: holds no {'test ' if divided else ''}pictures")
    space = LabelSpace.from_templates(source.class_names, prompts or state.scenario.value.prompts)
    pixels = source.load(items, state.loaded.pixels)
    share = accuracy(state.classifier(), pixels, torch.tensor([item.label for item in items]), space)
    return Measured(root.name, share, len(items))
