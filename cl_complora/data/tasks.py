"""A scenario's data made concrete: images in memory, label spaces declared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..config.scenario import Augmentation
from .captions.multi_label_sets import MultiLabelPlan
from .captions.retrieval_sets import CaptionPlan
from .images.broken import saying_how_to_go_on
from .images.cache import load_cached, size
from .items import Item, Source
from .labels import LabelSpace
from .plans import Plan, Plans

if TYPE_CHECKING:
    from torch import Tensor

    from .images.pixels import Pixels

Reader = Callable[[Source, Sequence[Item], "Pixels"], "Tensor"]

# Training images beyond so many bytes stay on the disk like test images (a full Food-101 takes 11 GB
# decoded).
LARGE = 2**30
# And so do few small ones, which all runs of a seed share: drawn or decoded anew they cost more time than
# disk.
SMALL = 4 * 2**20


@dataclass
class Images:
    """Decoded images and their labels: ``N × 3 × H × W`` uint8 and ``(N,)`` int64."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass
class CaptionData:
    """A retrieval set: ``N × 3 × H × W`` uint8, and what is written under every image."""

    pixels: Tensor
    plan: CaptionPlan


@dataclass
class TaskData:
    """One task ready to train and test.

    Attributes:
        name: task name.
        index: position in the stream, from 0.
        space: label space that its test images are classified in; of a task of captions, the different first
            texts of its training images, which parts see that look at a task as a whole.
        train_space: label space that its training loss contrasts (a prefix of ``space`` or ``space`` itself).
        train, validation, test: images, labels within ``space``.
        augment: what training images may undergo.
        plan: where it all came from.
        seen_space: classes of this task and all before it where the tasks share one space, whatever the loss
            contrasts; None where that is ``train_space``.
    """

    name: str
    index: int
    space: LabelSpace
    train_space: LabelSpace
    train: Images
    validation: Images
    test: Images
    augment: Augmentation
    plan: Plan
    seen_space: LabelSpace | None = None

    @property
    def captioned(self) -> bool:
        """Whether its images have captions and no classes; data made by hand may have no plan."""
        return self.plan is not None and self.plan.captioned

    def captions(self, part: str) -> CaptionData:
        """``train``, ``validation`` or ``test`` of a task of captions, with the texts of every image."""
        return CaptionData(getattr(self, part).pixels, self.plan.captions(part))


@dataclass
class MultiLabelData:
    """A multi-label set: ``N × 3 × H × W`` uint8, and what every image shows."""

    pixels: Tensor
    plan: MultiLabelPlan


@dataclass
class StreamData:
    """All tasks, the zero-shot sets (name → images and label space), the reference set, where there is one,
    the retrieval sets and the multi-label sets; and whether the tasks share their labels, so that a name is
    the same class in all of them."""

    tasks: list[TaskData]
    zero_shot: dict[str, tuple[Images, LabelSpace]]
    reference: tuple[Images, LabelSpace] | None = None
    retrieval: dict[str, CaptionData] = field(default_factory=dict)
    multi_label: dict[str, MultiLabelData] = field(default_factory=dict)
    shares_labels: bool = False


@saying_how_to_go_on()
def load(
    plans: Plans,
    protocol: str,
    pixels: Pixels,
    loss_classes: str = "seen",
    tests: bool = True,
    read: Reader = load_cached,
) -> StreamData:
    """Load the planned images and declare the label spaces of the protocol.

    Args:
        plans: from :func:`plan`.
        protocol: the scenario's.
        pixels: resize and crop of the model.
        loss_classes: ``seen`` or ``task``, the classes that a training loss contrasts (class-incremental
            only).
        tests: False leaves the test images of tasks unopened; there are none then.
        read: gives the images of whatever is kept decoded on the disk; :func:`unread` opens none, but those
            of retrieval and multi-label sets.
    """
    joint = protocol == "class-incremental"
    uncached = _decoded if read is load_cached else read
    own = [_space(p) for p in plans.tasks]
    seen: list[LabelSpace] = []
    for space in own if joint else ():
        seen.append(seen[-1].joined(space) if seen else space)
    tasks = []
    for index, task_plan in enumerate(plans.tasks):
        space = seen[-1] if joint else own[index]
        position = [space.class_names.index(name) for name in own[index].class_names] or [0]
        train_space = space
        if joint:
            # Joint label spaces grow at the end, so a label means the same class in every prefix.
            train_space = _prefix(space, len(seen[index]))
        train_position, seen_space = position, train_space
        if joint and loss_classes == "task":
            train_space, train_position = own[index], list(range(len(position)))
        parts = {
            name: _images(
                task_plan.source,
                _labelled(task_plan, items, own[index]),
                pixels,
                where,
                read if name == "test" or not SMALL < size(items, pixels) <= LARGE else uncached,
            )
            for name, items, where in (
                ("train", task_plan.train, train_position),
                ("validation", task_plan.validation, position),
                ("test", task_plan.test if tests else (), position),
            )
        }
        tasks.append(
            TaskData(
                task_plan.name,
                index,
                space,
                train_space,
                augment=task_plan.augment,
                plan=task_plan,
                seen_space=seen_space,
                **parts,
            )
        )
    zero_shot = {p.name: _held_out(p, pixels, read) for p in plans.zero_shot}
    reference = _held_out(plans.reference, pixels, read) if plans.reference else None
    captioned, labelled = load_captions(plans.retrieval, pixels), load_labelled(plans.multi_label, pixels)
    shares_labels = protocol != "task-incremental"
    return StreamData(tasks, zero_shot, reference, captioned, labelled, shares_labels)


def load_captions(plans: Sequence[CaptionPlan], pixels: Pixels) -> dict[str, CaptionData]:
    """The images of retrieval sets, by name."""
    return {one.name: CaptionData(load_cached(one.source, one.test, pixels), one) for one in plans}


def load_labelled(plans: Sequence[MultiLabelPlan], pixels: Pixels) -> dict[str, MultiLabelData]:
    """The images of multi-label sets, by name."""
    return {one.name: MultiLabelData(load_cached(one.source, one.test, pixels), one) for one in plans}


def unread(source: Source, items: Sequence[Item], pixels: Pixels) -> Tensor:
    """No image: for who needs labels and label spaces alone."""
    import torch

    return torch.empty(0, 3, *pixels.size, dtype=torch.uint8)


def _decoded(source: Source, items: Sequence[Item], pixels: Pixels) -> Tensor:
    return source.load(items, pixels)


def _held_out(chosen: Plan, pixels: Pixels, read: Reader) -> tuple[Images, LabelSpace]:
    images = _images(chosen.source, chosen.test, pixels, range(len(chosen.class_names)), read)
    return images, LabelSpace.from_templates(chosen.class_names, chosen.prompts)


def _space(chosen: Plan) -> LabelSpace:
    if chosen.texts is None:
        return LabelSpace.from_templates(chosen.class_names, chosen.prompts)
    first = dict.fromkeys(chosen.texts[item.key][0] for item in chosen.train)
    return LabelSpace.of_texts(first)


def _labelled(chosen: Plan, items: Sequence[Item], space: LabelSpace) -> Sequence[Item]:
    """Images with captions are labelled by the place of their first text, others are already."""
    if chosen.texts is None:
        return items
    place = {text: label for label, text in enumerate(space.class_names)}
    return [replace(item, label=place.get(chosen.texts[item.key][0], 0)) for item in items]


def _prefix(space: LabelSpace, classes: int) -> LabelSpace:
    return type(space)(space.class_names[:classes], space.prompts[:classes])


def _images(
    source: Source, items: Sequence[Item], pixels: Pixels, position: Sequence[int], read: Reader
) -> Images:
    import torch

    if not items:
        return Images(torch.empty(0, 3, *pixels.size, dtype=torch.uint8), torch.empty(0, dtype=torch.long))
    labels = torch.tensor([position[item.label] for item in items])
    return Images(read(source, items, pixels), labels)
