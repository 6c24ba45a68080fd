"""Few-shot draws: ours, those of CoOp and CLIP-LoRA for the same seed, and published lists.

The two projects iterate over labels in the order in which they first appear in the split file and draw with
Python's ``random`` seeded just before, so that a generator of our own reproduces them exactly:

* CoOp: training images first, then min(k, 4) validation images; a class with fewer images gives all of them.
* CLIP-LoRA: validation first, then training; a class with fewer images is drawn from with replacement.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config.yaml_lines import shown
from ..errors import UserError
from ..files import parse_json, read_lines
from .class_pools import by_class
from .items import Item
from .telling import Faults, some

# Of a published list.
MAX_BYTES = 2**28

Pools = Sequence[Sequence[Item]]


@dataclass(frozen=True)
class Draw:
    """Images of one task.

    Attributes:
        train, validation: the drawn images.
    """

    train: tuple[Item, ...]
    validation: tuple[Item, ...]


class TooFew(Exception):
    """A class has fewer images than are wanted.

    Args:
        label: the class.
        shots: how many training images were wanted (None: any).
        has: how many there are.
    """

    def __init__(self, label: int, shots: int | None, has: int) -> None:
        super().__init__(label)
        self.label, self.shots, self.has = label, shots, has


def uniform(
    pools: Pools,
    validation_pools: Pools,
    shots: Sequence[int | None],
    validation_shots: int,
    names: Sequence[str],
    seed: str,
) -> Draw:
    """Our own: a generator for every class, so that adding a class or a task changes no other class's draw.

    Args:
        pools: training images by label.
        validation_pools: of a source that has a validation split; unused, since every source has a training
            pool.
        shots: training images by label; None for all but the validation ones.
        validation_shots: images a class, drawn after the training images from the same pool.
        names: class names, of which the seeds are made.
        seed: of the run and task.

    Raises:
        TooFew: if a class has not enough images; of several the one that lacks most.
    """
    # The class that has least beside its shots is told of: what is enough for it is for all.
    left = [len(pool) - (count or 1) for pool, count in zip(pools, shots, strict=True)]
    if min(left) < validation_shots:
        short = left.index(min(left))
        raise TooFew(short, shots[short], len(pools[short]))
    train: list[Item] = []
    validation: list[Item] = []
    for label, (pool, count) in enumerate(zip(pools, shots, strict=True)):
        order = random.Random(f"{seed}/{names[label]}").sample(list(pool), len(pool))
        cut = count if count is not None else len(pool) - validation_shots
        train += order[:cut]
        validation += order[cut : cut + validation_shots]
    return Draw(tuple(train), tuple(validation))


def coop(
    pools: Pools,
    validation_pools: Pools,
    shots: Sequence[int | None],
    validation_shots: int,
    names: Sequence[str],
    seed: str,
) -> Draw:
    """CoOp's draw for the seed (Zhou et al., IJCV 2022; ``generate_fewshot_dataset`` of Dassl)."""
    rng = random.Random(_number(seed))
    train = _each(pools, shots, lambda pool, k: rng.sample(pool, k) if len(pool) >= k else pool)
    few = [None if k is None else min(k, 4) for k in shots]
    validation = _each(validation_pools, few, lambda pool, k: rng.sample(pool, k) if len(pool) >= k else pool)
    return Draw(train, _first(validation, validation_shots))


def clip_lora(
    pools: Pools,
    validation_pools: Pools,
    shots: Sequence[int | None],
    validation_shots: int,
    names: Sequence[str],
    seed: str,
) -> Draw:
    """CLIP-LoRA's draw for the seed (Zanella & Ben Ayed, CVPRW 2024)."""
    rng = random.Random(_number(seed))

    def draw(pool: list[Item], k: int) -> list[Item]:
        return rng.sample(pool, k) if len(pool) >= k else rng.choices(pool, k=k)

    validation = _each(validation_pools, [None if k is None else min(k, 4) for k in shots], draw)
    return Draw(_each(pools, shots, draw), _first(validation, validation_shots))


SAMPLERS: dict[str, Callable[[Pools, Pools, Sequence[int | None], int, Sequence[str], str], Draw]] = {
    "uniform": uniform,
    "coop": coop,
    "clip_lora": clip_lora,
}


# Draws of one generator for all classes: which images a class gets depends on the classes before it.
_OF_ALL_CLASSES = ("coop", "clip_lora")
_WHY_FEW = {
    "coop": "sampler: coop sets apart as many as shots, 4 at most, of what the source keeps for it",
    "clip_lora": "sampler: clip_lora sets apart as many as shots, 4 at most, of what the source keeps for it",
    "split_file": "as its split_file lists them",
}


def draw(
    sampler: str,
    training: Sequence[Item],
    validation: Sequence[Item],
    chosen: Sequence[int],
    shots: Sequence[int | None],
    validation_shots: int,
    names: Sequence[str],
    seed: str,
) -> Draw:
    """The images of some classes of a source.

    CoOp draws from the whole data set and takes some of its classes after that
    (``generate_fewshot_dataset``, then ``subsample_classes``); so does this, for its draw and CLIP-LoRA's.

    Args:
        sampler: one of :data:`SAMPLERS`.
        training, validation: images of the source that may be drawn, of all of its classes.
        chosen: labels of the classes, which get new ones from 0 on.
        shots: training images of each of them.
        validation_shots, names, seed: as for :func:`uniform`; ``names`` are of the chosen ones.

    Raises:
        TooFew: if one of the classes has not enough images.
    """
    pools = by_class(training, chosen)
    for label, pool in enumerate(pools):
        if not pool:
            raise TooFew(label, shots[label], 0)
    if sampler not in _OF_ALL_CLASSES:
        kept = by_class(validation, chosen)
        return SAMPLERS[sampler](pools, kept, shots, validation_shots, names, seed)
    every = range(1 + max(item.label for item in training))
    wanted = dict(zip(chosen, shots, strict=True))
    found = SAMPLERS[sampler](
        by_class(training, every),
        by_class(validation, every),
        [wanted.get(label, shots[0]) for label in every],
        validation_shots,
        names,
        seed,
    )
    return Draw(
        *(
            tuple(item for pool in by_class(part, chosen) for item in pool)
            for part in (found.train, found.validation)
        )
    )


def few_apart(validation: Sequence[Item], names: Sequence[str], asked: int, by: str) -> str | None:
    """What to say where classes have fewer validation images than were asked for.

    Args:
        validation: images that are set apart.
        names: of the classes.
        asked: how many a class.
        by: what set them apart: a sampler, or ``split_file``.
    """
    held = Counter(item.label for item in validation)
    short = [name for label, name in enumerate(names) if held[label] < asked]
    if not short:
        return None
    most = max(held[label] for label in range(len(names)) if held[label] < asked)
    has = "has" if len(short) == 1 else "have"
    return f"validation_shots: {asked} a class, but {some(short)} {has} {most} at most: {_WHY_FEW[by]}"


def _each(
    pools: Pools, shots: Sequence[int | None], draw: Callable[[list[Item], int], list[Item]]
) -> tuple[Item, ...]:
    """Draw class by class in the order in which the classes first appear; ``order`` of an item is its
    place."""
    by_appearance = sorted(
        (label for label, pool in enumerate(pools) if pool), key=lambda label: pools[label][0].order
    )
    drawn = {}
    for label in by_appearance:
        pool, k = list(pools[label]), shots[label]
        drawn[label] = pool if k is None else draw(pool, k)
    return tuple(item for label in sorted(drawn) for item in drawn[label])


def _first(items: Sequence[Item], per_class: int) -> tuple[Item, ...]:
    kept, seen = [], {}
    for item in items:
        seen[item.label] = seen.get(item.label, 0) + 1
        if seen[item.label] <= per_class:
            kept.append(item)
    return tuple(kept)


def _number(seed: str) -> int:
    return int(seed.partition("/")[0])


def listed(file: Path, pools: Pools) -> Draw:
    """The images that a published list names, in its order.

    Args:
        file: JSON lines with ``path`` (or ``impath``, ``image``, ``key``) and, where a line is not about
            training, ``split``; also the manifests that a run writes. ``test`` lines are passed over.
        pools: training images by label, which the names must be among (a name may have more folders before
            it).

    Raises:
        UserError: naming file and line.
    """
    known = {item.key: item for pool in pools for item in pool}
    tails: dict[str, Item | None] = {}
    for item in known.values():
        parts = item.key.split("/")
        for start in range(1, len(parts)):
            tail = "/".join(parts[start:])
            tails[tail] = None if tail in tails else item
    deepest = max((key.count("/") for key in known), default=0) + 1
    found: dict[str, list[Item]] = {"train": [], "validation": []}
    parts: dict[str, tuple[str, int]] = {}
    faults = Faults(file)
    for number, line in enumerate(read_lines(file, MAX_BYTES), start=1):
        if line.strip():
            split, name = _listed_line(file, number, line)
            if split == "test":
                continue
            item = known.get(name) or _by_tail(name, known, tails, deepest)
            if item is None:
                faults.add(f"{file}:{number}: no training image of this task is called {shown(name)}")
                continue
            part, first = parts.setdefault(item.key, (split, number))
            if part != split:
                # What settings are chosen by must not be what the towers are trained on.
                told = f"{shown(name)} is for {split}, and in line {first} for {part}"
                faults.add(f"{file}:{number}: {told}")
            found[split].append(item)
    faults.refuse()
    if not found["train"]:
        raise UserError(f"{file}: names no training image of this task")
    return Draw(tuple(found["train"]), tuple(found["validation"]))


def _listed_line(file: Path, number: int, line: str) -> tuple[str, str]:
    try:
        row = parse_json(line)
        name = next(row[key] for key in ("path", "impath", "image", "key") if key in row)
        split = {"val": "validation"}.get(row.get("split", "train"), row.get("split", "train"))
    except (ValueError, TypeError, AttributeError, StopIteration):
        raise UserError(f"{file}:{number}: must be a JSON object with path (or impath, image, key)") from None
    if split not in ("train", "validation", "test"):
        raise UserError(f"{file}:{number}: split must be train, validation or test, got {shown(split)}")
    if not isinstance(name, str):
        raise UserError(f"{file}:{number}: path must be a text, got {shown(name)}")
    return split, name.replace("\\", "/")


def _by_tail(name: str, known: dict[str, Item], tails: dict[str, Item | None], deepest: int) -> Item | None:
    """An image whose key is the end of the name, or the other way round, where only one is.

    Args:
        name: as listed.
        known: images by key.
        tails: images by every end of their key; None where several have it.
        deepest: parts of the longest key.
    """
    parts = name.split("/")
    for start in range(max(0, len(parts) - deepest), len(parts)):
        if "/".join(parts[start:]) in known:
            return known["/".join(parts[start:])]
    return tails.get(name)
