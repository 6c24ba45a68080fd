"""Why did it forget? Parts of a task's update taken out one at a time, and what of the old accuracy comes
back."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..analysis.representation import spread
from ..clip.heads.head import Head
from ..data.labels import LabelSpace
from ..errors import UserError
from ..files import write_json
from ..store.deltas import load_delta
from .evaluation import sets_of
from .samples import Samples, Score
from .states import State, every_state, finished_tasks
from .update_parts import COARSE, Part, Piece, coarse_parts, directions, finer_parts, pieces

# Layers taken apart into matrices, and matrices into directions: the most responsible ones.
FINER = 3
DIRECTIONS = 3


@dataclass(frozen=True)
class Blame:
    """What taking a part out gives back.

    Attributes:
        kind, name: of the part.
        returned: points of the old task's accuracy that come back.
        probability: points of the mean probability of the right class that come back.
        cost: points of the new task's accuracy that are lost.
        retention: zero-shot set → points that come back.
    """

    kind: str
    name: str
    returned: float
    probability: float
    cost: float
    retention: dict[str, float]


@dataclass(frozen=True)
class Pair:
    """A task that was forgotten when another was learned.

    Attributes:
        new, old: the tasks.
        images: of the old task that were measured.
        accuracy_before, accuracy_after: fractions of them that were right before and after the new task.
        zero_shot: set → the same two of it.
        parts: of the new task's update, the most responsible of each kind first.
    """

    new: str
    old: str
    images: int
    accuracy_before: float
    accuracy_after: float
    zero_shot: dict[str, tuple[float, float]]
    parts: tuple[Blame, ...]

    @property
    def lost(self) -> float:
        """Points of accuracy."""
        return 100 * (self.accuracy_before - self.accuracy_after)

    def top(self, kind: str) -> list[Blame]:
        """Parts of a kind, the most responsible first."""
        return [part for part in self.parts if part.kind == kind]


def explain(
    untouched: State,
    most_pairs: int = 5,
    most_images: int = 200,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Pair]:
    """Find who forgot what because of which part of which update; also kept as ``explain.json`` in the run.

    The run's states are rebuilt one after the other and measured on a sample of each set. For the pairs (new
    task, old task) that lost most, W_t − ΔW_t[part] is measured for every tower, kind of matrix and layer of
    ΔW_t, then for the matrices of the layers that gave back most, and the leading singular directions of
    those matrices. Where one head answers for all tasks, which changes with each of them, the head of before
    is put back on the weights as they are, too.

    Args:
        untouched: the run's state before its first task (``open_run(path, after="0")``).
        most_pairs: pairs to explain.
        most_images: images of a set at most, evenly spread.
        tell: told what is being done.

    Raises:
        UserError: for a run of independent tasks, or with other pictures than it was made with.
    """
    untouched.refuse_captions("updates are taken apart by what they do to the answers among classes")
    folder, results = untouched.folder, untouched.results
    if results.get("independent"):
        raise UserError(f"{folder.root}: its tasks are independent; none can make another forgotten")
    done = finished_tasks(folder, results)
    samples = Samples(untouched.classifier(), _samples(untouched, most_images))
    parameters = dict(untouched.loaded.model.named_parameters())
    zero_shot = results["zero_shot_sets"]
    tell(f"measuring {len(done) + 1} states on {sum(len(s[1]) for s in samples.sets.values())} images")
    curve, heads = [], []
    for state in every_state(untouched):
        samples.heads = state.heads()
        heads.append(samples.heads)
        curve.append(samples.measure(samples.sets))
    lost = sorted(_losses(curve, done), reverse=True)[:most_pairs]
    found: list[Pair] = []
    # Backwards, because the weights now hold every update.
    for index in reversed(range(len(done))):
        delta = load_delta(folder.delta(index, done[index]))
        old = [name for _, new, name in lost if new == done[index]]
        if old:
            tell(f"taking the update of '{done[index]}' apart")
            samples.heads = heads[index + 1]
            changed = _Changed(samples, parameters, [*old, done[index], *zero_shot])
            ranked = _ranked(changed, old, pieces(delta))
            earlier = heads[index] if untouched.shares_head else {}
            for name in old:
                before, after = curve[index], curve[index + 1]
                found.append(
                    Pair(
                        new=done[index],
                        old=name,
                        images=len(samples.sets[name][1]),
                        accuracy_before=before[name].accuracy / 100,
                        accuracy_after=after[name].accuracy / 100,
                        zero_shot={z: (before[z].accuracy / 100, after[z].accuracy / 100) for z in zero_shot},
                        parts=tuple(changed.blames(ranked[name], name, done[index], zero_shot, earlier)),
                    )
                )
        delta.add_to(parameters, -1.0)
    found.sort(key=lambda pair: -pair.lost)
    _write(untouched, done, found, most_images)
    return found


def _samples(state: State, most: int) -> dict[str, tuple[Tensor, Tensor, LabelSpace]]:
    found = {}
    for one in sets_of(state):
        chosen = spread(len(one.images), most)
        found[one.name] = (one.images.pixels[chosen], one.images.labels[chosen], one.space)
    return found


def _losses(curve: Sequence[dict[str, Score]], tasks: Sequence[str]) -> list[tuple[float, str, str]]:
    """(points lost, new task, old task) of every pair that lost any."""
    return [
        (before[old].accuracy - after[old].accuracy, new, old)
        for index, (new, before, after) in enumerate(zip(tasks, curve, curve[1:], strict=False))
        for old in tasks[:index]
        if after[old].accuracy < before[old].accuracy
    ]


class _Changed:
    """The model with one part of an update taken out at a time."""

    def __init__(self, samples: Samples, parameters: dict[str, Tensor], names: Sequence[str]) -> None:
        self.samples, self.parameters, self.names = samples, parameters, list(dict.fromkeys(names))
        self.whole = samples.measure(self.names)
        self._scores: dict[tuple[Hashable, ...], dict[str, Score]] = {}

    @torch.no_grad()
    def without(self, part: Part) -> dict[str, Score]:
        """Every set without this part of the update; the weights are put back to the bit."""
        key = tuple(piece.key for piece in part.pieces)
        if key not in self._scores:
            touched = {piece.parameter: self.parameters[piece.parameter].clone() for piece in part.pieces}
            for piece in part.pieces:
                piece.add_to(self.parameters, -1.0)
            blocks = min(
                (piece.place.blocks for piece in part.pieces if piece.place.tower == "vision"), default=()
            )
            self._scores[key] = self.samples.measure_changed(self.names, part.towers, blocks)
            for name, value in touched.items():
                self.parameters[name].copy_(value)
        return self._scores[key]

    def returned(self, part: Part, old: str) -> tuple[float, float]:
        """Points of accuracy and of the probability of the right class that come back."""
        return _gained(self.without(part)[old], self.whole[old])

    def most_first(self, parts: Sequence[Part], old: str) -> list[Part]:
        """The parts by what comes back of a task without them."""
        return sorted(parts, key=lambda part: self.returned(part, old), reverse=True)

    def under(self, heads: Mapping[str, Head]) -> dict[str, Score]:
        """Every set by other heads, on the weights as they are."""
        now, self.samples.heads = self.samples.heads, heads
        scores = self.samples.measure_changed(self.names, towers=set(), blocks=())
        self.samples.heads = now
        return scores

    def blames(
        self,
        parts: Sequence[Part],
        old: str,
        new: str,
        zero_shot: Sequence[str],
        earlier_heads: Mapping[str, Head],
    ) -> list[Blame]:
        """What taking out each of the parts does, and first the head, where an earlier one answered for the
        old task as well."""
        changed = [("head", "shared by all tasks", self.under(earlier_heads))] if old in earlier_heads else []
        changed += [(part.kind, part.name, self.without(part)) for part in parts]
        found = []
        for kind, called, scores in changed:
            returned = _gained(scores[old], self.whole[old])
            cost = self.whole[new].accuracy - scores[new].accuracy
            kept = {name: scores[name].accuracy - self.whole[name].accuracy for name in zero_shot}
            found.append(Blame(kind, called, *returned, cost, kept))
        return found


def _gained(now: Score, before: Score) -> tuple[float, float]:
    """Points of accuracy and of the probability of the right class."""
    return now.accuracy - before.accuracy, now.probability - before.probability


def _ranked(changed: _Changed, old: Sequence[str], changes: Sequence[Piece]) -> dict[str, list[Part]]:
    """Old task → parts, coarse to fine, the most responsible of each kind first."""
    coarse = coarse_parts(changes)
    found = {}
    for name in old:
        of_kind = {kind: changed.most_first([p for p in coarse if p.kind == kind], name) for kind in COARSE}
        matrices = [matrix for layer in of_kind["layer"][:FINER] for matrix in finer_parts(layer)]
        matrices = changed.most_first(matrices, name)
        terms = [term for matrix in matrices[:FINER] for term in directions(matrix, DIRECTIONS)]
        found[name] = [part for parts in of_kind.values() for part in parts] + matrices
        found[name] += changed.most_first(terms, name)
    return found


def _write(state: State, done: Sequence[str], found: Sequence[Pair], most_images: int) -> None:
    content = {
        "states": ["untouched model", *done],
        "pairs": [vars(pair) | {"parts": [vars(part) for part in pair.parts]} for pair in found],
        "created_with": {"images": most_images, "software": state.results["software"]},
    }
    write_json(state.folder.root / "explain.json", content)
