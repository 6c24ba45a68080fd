"""Every picture that a scenario would use, opened once: what is missing or broken is told by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...config import Scenario, load_scenario
from ...config.loading import Located
from ...config.model_names import check_model, image_size
from ...config.sources import DatasetSource
from ...errors import UserError, raise_all
from ..beside_tasks import REFERENCE
from ..captions.multi_label_sets import MultiLabelPlan
from ..captions.retrieval_sets import CaptionPlan
from ..images.cache import size
from ..items import Item
from ..planning import Plan, Plans, plan
from ..telling import counted, worded
from .notes import notes

if TYPE_CHECKING:
    from ..images.pixels import Pixels


@dataclass
class Report:
    """What was found.

    Attributes:
        lines: one per task and zero-shot set.
        faults: one per picture that cannot be read.
    """

    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def verify(scenario: str, seed: int | None = None) -> Report:
    """Check layout, classes, shots and readability.

    Args:
        scenario: name or path.
        seed: of the draw; None for the draws of all seeds of the scenario.

    Raises:
        UserError: where the scenario itself cannot work (missing folder, too few images…).
    """
    from ..images.pixels import Pixels

    located = load_scenario(scenario)
    raise_all(check_model(located))
    report = Report(faults=_registry_faults(located))
    if report.faults:
        return report  # what is missing is told for every data set at once, and nothing can be drawn yet
    pixels = Pixels((32, 32))
    total = 0
    known = image_size(located)
    decoded = known or (224, 224)
    first, *further = located.value.seeds if seed is None else (seed,)
    plans = plan(located, first)
    report.lines += [f"skipped: {line}" for line in plans.skipped]
    report.lines += [f"note: {line}" for line in notes(located, plans, every=True)]
    for chosen in plans:
        items = (*chosen.train, *chosen.validation, *chosen.test)
        broken = _faults(chosen, items, pixels)
        report.faults += broken
        total += size(chosen.test, Pixels(decoded))
        state = _state(chosen, broken)
        parts = {name: len(part) for name, part in _parts(chosen) if part}
        is_reference = chosen.name == REFERENCE
        images = ", ".join(str(n) if is_reference else f"{n} {name}" for name, n in parts.items())
        images += worded([*parts.values()][-1], " image")
        kinds = _texts(chosen) if chosen.captioned else counted(len(chosen.class_names), "class", "classes")
        name = "reference set" if is_reference else chosen.name
        report.lines.append(f"{name}: {kinds}, {images}, {state}; split {chosen.sha256()[:12]}")
    for beside in plans.beside:
        broken = _faults(beside, beside.test, pixels)
        report.faults += broken
        total += size(beside.test, Pixels(decoded))
        state = _state(beside, broken)
        report.lines.append(
            f"{beside.name}: {counted(len(beside.test), 'image')} with {_told(beside)}, {state}; "
            f"split {beside.sha256()[:12]}"
        )
    if further:
        report.faults += _of_further_seeds(located, further, plans, pixels, report.lines)
    assumed = "" if known else " (the model's own size is not known here)"
    amount = f"{total / 1e6:.0f} MB" if total >= 1e6 else f"{total / 1e3:.0f} kB"
    size_told = f"{amount} decoded at {decoded[1]} × {decoded[0]}"
    report.lines.append(f"{scenario}: the test images take {size_told}{assumed}")
    return report


def _of_further_seeds(
    located: Located[Scenario], seeds: Sequence[int], opened: Plans, pixels: Pixels, lines: list[str]
) -> list[str]:
    """Why pictures cannot be read that other seeds draw and the first did not; a line is added on them."""
    seen = {chosen.name: {*chosen.train, *chosen.validation, *chosen.test} for chosen in opened}
    broken: list[str] = []
    more = 0
    for seed in seeds:
        for chosen in plan(located, seed):
            before = seen[chosen.name]
            items = {*chosen.train, *chosen.validation, *chosen.test} - before
            before |= items
            more += len(items)
            broken += _faults(chosen, list(items), pixels)
    if more:
        state = f"{len(broken)} of them cannot be read" if broken else "all of these can be read"
        which = f"{worded(len(seeds), 'seed')} {', '.join(map(str, seeds))}"
        lines.append(f"{which}: {counted(more, 'further image')}, {state}")
    return broken


def _registry_faults(located: Located[Scenario]) -> list[str]:
    from ..registry import check, root_of

    return [
        fault
        for source in named_sets(located)
        for fault in check(source.name, root_of(source, located.folder))
    ]


def named_sets(located: Located[Scenario]) -> list[DatasetSource]:
    """The data sets of the registry that a scenario uses, each once."""
    value = located.value
    entries = (*value.tasks, *value.zero_shot, *([value.reference] if value.reference else []))
    named = {e.source.model_dump_json(): e.source for e in entries if isinstance(e.source, DatasetSource)}
    return list(named.values())


def _texts(chosen: Plan) -> str:
    return counted(sum(map(len, chosen.texts.values())), "caption")


def _parts(chosen: Plan) -> tuple[tuple[str, tuple], ...]:
    return ("training", chosen.train), ("validation", chosen.validation), ("test", chosen.test)


def _state(chosen: Plan | CaptionPlan | MultiLabelPlan, broken: Sequence[str]) -> str:
    """How many pictures of a plan can be read; where some of its source were skipped, not all of those."""
    if broken:
        return f"{len(broken)} of them cannot be read"
    return "all of these can be read" if getattr(chosen.source, "skipped", ()) else "all can be read"


def _faults(chosen: Plan | CaptionPlan | MultiLabelPlan, items: Sequence[Item], pixels: Pixels) -> list[str]:
    """Why pictures cannot be read, each opened once, in the order in which they are stored: no part of a
    table is read twice."""
    found = []
    for item in sorted(dict.fromkeys(items), key=lambda item: item.order):
        try:
            chosen.source.load([item], pixels)
        except UserError as error:
            found.append(error.messages[0])
    return found


def _told(plan: CaptionPlan | MultiLabelPlan) -> str:
    """What is known of the images of a set that have no one class."""
    if isinstance(plan, CaptionPlan):
        return counted(len(plan.captions), "text")
    labels = counted(sum(map(len, plan.labels)), "label")
    return f"{labels} of {counted(len(plan.class_names), 'class', 'classes')}"
