"""Membership inference on a finished run: can one tell which images a task was trained on?

An attacker sees the loss of an image before and after training; what was trained on fell further:

    loss-difference   ℓ(x; W_i) − ℓ(x; W_base)           loss-ratio   ℓ(x; W_i) / max(ℓ(x; W_base), 1e-6)

(Pandora's White-Box, arXiv 2402.17012: the difference is what its code ranks by, the ratio what its text
says.) Lower means member. Nothing is trained or merged for good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ..analysis.representation import spread
from ..clip.classifier import ClipClassifier
from ..clip.heads.head import Head, answered, features_for
from ..clip.text import evaluating
from ..config.recorded import learned_at_once
from ..data.items import Item
from ..data.labels import LabelSpace
from ..data.planning import Plan, Plans
from ..data.tasks import Images, TaskData, load
from ..errors import UserError
from ..files import write_json
from .evaluation import plans_of
from .roc import separation
from .states import State, every_state, finished_tasks

FILE = "membership.json"
FPR = 0.01
# A base loss below it, which the ratio would divide by, is taken for it; such images are counted.
FLOOR = 1e-6
SCORES = ("loss-difference", "loss-ratio")


def difference(target: NDArray, base: NDArray) -> NDArray:
    """ℓ_target − ℓ_base, image by image."""
    return target - base


def ratio(target: NDArray, base: NDArray) -> NDArray:
    """ℓ_target / max(ℓ_base, 1e-6), image by image; a base that is no number stays none."""
    return target / np.maximum(base, FLOOR)


_SCORES = dict(zip(SCORES, (difference, ratio), strict=True))


@dataclass(frozen=True)
class Groups:
    """Images of a task that it was trained on, and images of the same classes that nothing was.

    Attributes:
        task: with its members as training images and the others as test images.
        from_training, from_test: non-members by the part of the source that they come from.
    """

    task: TaskData
    from_training: int
    from_test: int


def audit(
    untouched: State, most: int = 1000, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Audit every finished task in every state of a run; also kept as ``membership.json`` in the run.

    Args:
        untouched: the run's state before its first task (``open_run(path, after="0")``).
        most: members of a task at most, and as many non-members.
        tell: told what is being done.

    Raises:
        UserError: for a run without finished tasks, with other pictures than it was made with, or with a
            task whose source has no unused image of its classes.
    """
    folder, results = untouched.folder, untouched.results
    untouched.refuse_captions("membership is told from losses over the classes of a task")
    done = finished_tasks(folder, results)
    if not done:
        raise UserError(f"{folder.root}: no task is finished; there is nothing to audit")
    groups = _groups(untouched, done, most)
    classifier = untouched.classifier()
    tell(f"asking {len(done) + 1} states about {sum(len(g.task.train) for g in groups)} members")
    losses = [_losses(classifier, groups, state.heads()) for state in every_state(untouched)]
    tasks = [
        {
            "name": group.task.name,
            "members": len(group.task.train),
            "non_members": len(group.task.test),
            "from_training_split": group.from_training,
            "from_test_split": group.from_test,
            **_of_task([state[place] for state in losses], *_trained_in(untouched, place)),
        }
        for place, group in enumerate(groups)
    ]
    content = {
        "fpr": FPR,
        "states": ["untouched model", *done],
        "tasks": tasks,
        "created_with": {"images": most, "software": results["software"]},
    }
    write_json(folder.root / FILE, content)
    return content


def _trained_in(untouched: State, place: int) -> tuple[int, int, bool]:
    """State that a task was trained in, the one before that, and whether no other state has to do with
    it."""
    if learned_at_once(untouched.config):
        return 1, 0, False
    independent = untouched.scenario.value.independent
    return place + 1, 0 if independent else place, independent


def _of_task(losses: Sequence[tuple[NDArray, NDArray]], own: int, before: int, alone: bool) -> dict[str, Any]:
    """All figures of a task.

    Args:
        losses: of its (members, non-members) in every state.
        own, before, alone: as :func:`_trained_in` tells them.
    """
    targets = [0, own] if alone else list(range(len(losses)))
    bases = {"untouched": (0, targets), "before": (before, [i for i in targets if i >= own])}
    found: dict[str, Any] = {"trained_in_state": own}
    for name, (base, states) in bases.items():
        found[name] = {
            score: [{"state": i, **_told(rule, losses[i], losses[base])} for i in states]
            for score, rule in _SCORES.items()
        }
    found["null"] = {
        "state": before,
        "loss": asdict(separation(*losses[before], FPR)),
        **{score: _told(rule, losses[before], losses[0]) for score, rule in _SCORES.items()},
    }
    low = [int((group < FLOOR).sum()) for state in {0, before} for group in losses[state]]
    found["base_losses_below_floor"] = sum(low)
    return found


def _told(
    rule: Callable[[NDArray, NDArray], NDArray],
    target: tuple[NDArray, NDArray],
    base: tuple[NDArray, NDArray],
) -> dict[str, Any]:
    scores = (rule(now, then) for now, then in zip(target, base, strict=True))
    return asdict(separation(*scores, FPR))


def _losses(
    classifier: ClipClassifier, groups: Sequence[Groups], heads: Mapping[str, Head]
) -> list[tuple[NDArray, NDArray]]:
    """Losses of every task's members and non-members in the state that the model is in."""
    return [
        tuple(
            image_losses(classifier, part, group.task.space, heads.get(group.task.name))
            for part in (group.task.train, group.task.test)
        )
        for group in groups
    ]


@torch.no_grad()
def image_losses(
    classifier: ClipClassifier, images: Images, space: LabelSpace, head: Head | None = None
) -> NDArray:
    """``(N,)`` cross-entropies over a label space, in float64: what the right class's probability lacks to
    1."""
    device = next(classifier.parameters()).device
    found = []
    with evaluating(classifier):
        parts = (each.split(classifier.batch_size) for each in (images.pixels, images.labels))
        for pixels, labels in zip(*parts, strict=True):
            logits = answered(classifier, features_for(classifier, pixels.to(device), head), space, head)
            found.append(F.cross_entropy(logits.double(), labels.to(device), reduction="none").cpu())
    return torch.cat(found).numpy()


def _groups(state: State, done: Sequence[str], most: int) -> list[Groups]:
    """Members and non-members of every finished task, decoded as for evaluation, without augmentation.

    Raises:
        UserError: for a task without non-members.
    """
    plans = plans_of(state)
    used = {
        image
        for one in plans
        for image in one.source.identities(
            [*one.train, *one.validation, *(one.test if one is plans.reference else ())]
        )
    }
    chosen, counts = [], []
    for one in plans.tasks:
        if one.name not in done:
            chosen.append(replace(one, train=(), validation=(), test=()))
            continue
        others = {split: _unused(one, split, used) for split in ("train", "test")}
        taken = _balanced(others["train"], most)
        rest = _balanced(others["test"], most - len(taken))
        if not taken and not rest:
            raise UserError(
                f"{state.folder.root}: of the classes of task '{one.name}' every image of its source was"
                " trained on or chosen by; there is none left to compare with"
            )
        # A task that learns all pictures of a data set has tens of thousands.
        members = one.train if len(one.train) <= most else tuple(_balanced(one.train, most))
        chosen.append(replace(one, train=members, validation=(), test=(*taken, *rest)))
        counts.append((len(taken), len(rest)))
    data = load(Plans(tuple(chosen), ()), state.scenario.value.protocol, state.loaded.pixels)
    tasks = [task for task in data.tasks if task.name in done]
    return [Groups(task, *numbers) for task, numbers in zip(tasks, counts, strict=True)]


def _unused(chosen: Plan, split: str, used: set[str]) -> list[Item]:
    """Images of a part of a task's source that are of its classes and took no part in training.

    Args:
        chosen: the task.
        split: part of its source.
        used: what took part, as any source knows it: another task may have listed the same files.
    """
    label = {name: place for place, name in enumerate(chosen.class_names)}
    source = chosen.source
    items = source.items(split)
    return [
        replace(item, label=label[source.class_names[item.label]])
        for item, image in zip(items, source.identities(items), strict=True)
        if source.class_names[item.label] in label and image not in used
    ]


def _balanced(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many, of all classes alike and evenly spread within each."""
    pools: dict[int, list[Item]] = {}
    for item in items:
        pools.setdefault(item.label, []).append(item)
    shares = dict.fromkeys(pools, 0)
    left = min(max(0, most), len(items))
    while left:
        open_pools = [label for label in pools if shares[label] < len(pools[label])]
        each = max(1, left // len(open_pools))
        for label in open_pools:
            given = min(each, len(pools[label]) - shares[label], left)
            shares[label] += given
            left -= given
    return [pools[label][int(at)] for label in pools for at in spread(len(pools[label]), shares[label])]
