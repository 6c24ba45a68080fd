"""The untouched model's first answers, looked at before anything is trained: a wrong setting shows there.

Weights that are read with another normalisation or activation than they were trained with load without a
word, and answer by chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..config.loading import Located
from ..config.model_names import EMBEDDED
from ..config.normalisation import USUAL, Triple, written
from ..config.scenario import Scenario
from ..data.checks.plausibility import is_code
from ..data.images.survey import spread
from ..data.planning import Plan, Plans
from ..metrics import interval

if TYPE_CHECKING:
    from ..clip.classifier import ClipClassifier
    from ..clip.model import LoadedClip
    from ..data.labels import LabelSpace
    from ..data.tasks import Images, StreamData

# An accuracy that is surely above chance, but by less than this, is nothing that a CLIP knows.
NEXT_TO_NOTHING = 0.02
# Pictures of all sets together that another normalisation is tried on, and that a check measures; but at
# least so many of a set, which are just enough to tell it from chance.
TRIED, CHECKED, LEAST = 256, 600, 40
# Normalisations that differ by less give the same answers.
ALIKE = 0.06
# Another normalisation is worth a word if it gets this share more of the pictures right, surely.
WORTH_TELLING = 0.05
OF_EMBEDDED = (
    "the embedded model knows only pictures that this package draws, by the names that it gives them; for"
    " others take a real CLIP: --model ViT-B-16 --pretrained openai, or one of your own with --model-config"
    " and --pretrained"
)


@dataclass(frozen=True)
class Standing:
    """How the untouched model did on a task or a zero-shot set.

    Attributes:
        name: of the set.
        right: fraction of its pictures.
        chance: fraction that would be right if answers and labels had nothing to do with each other.
        images: how many there are.
        class_names: what it chose among.
    """

    name: str
    right: float
    chance: float
    images: int
    class_names: tuple[str, ...]

    @property
    def can_tell(self) -> bool:
        """Whether it is surely above chance, or its pictures are enough to tell a model that knows half of
        what there is to know from chance."""
        midway = (1 + self.chance) / 2
        enough = len(self.class_names) > 1 and interval(midway, self.images)[0] > self.chance
        return enough or not self.at_chance

    @property
    def at_chance(self) -> bool:
        """Whether the binomial interval of the accuracy reaches down to chance."""
        return interval(self.right, self.images)[0] <= self.chance + NEXT_TO_NOTHING * (1 - self.chance)

    def __str__(self) -> str:
        low, high = (f"{100 * value:.0f}" for value in interval(self.right, self.images))
        # One in so many classes, which everybody expects, unless answers and pictures are uneven.
        even = abs(self.chance * len(self.class_names) - 1) < 0.05
        chance = f"chance{'' if even else ' of these answers'} {100 * self.chance:.1f}"
        return f"{self.name} {100 * self.right:.1f} % (95 % interval {low} to {high}, {chance})"


@dataclass(frozen=True)
class Better:
    """A usual normalisation that surely gets more of a few pictures right.

    Attributes:
        told: that, in a sentence.
        mean, std: the normalisation.
    """

    told: str
    mean: Triple
    std: Triple

    @property
    def settings(self) -> tuple[str, str]:
        """Lines with what to paste, in full precision: for a command, and for the scenario, which --model
        passes over."""
        mean, std = (f"[{','.join(f'{value:.10g}' for value in part)}]" for part in (self.mean, self.std))
        return (
            f'to run with it: --set "model.mean={mean}" --set "model.std={std}"',
            f"or in the scenario: model: {{…, mean: {mean}, std: {std}}}",
        )


def cautions(
    standings: Sequence[Standing], loaded: LoadedClip, model: ClipClassifier, data: StreamData
) -> list[str]:
    """What to tell of an untouched model that knows nothing of its pictures; nothing where all is well.

    Args:
        standings: of every task and zero-shot set.
        loaded: the model as it was loaded.
        model: that answers; as it was, afterwards.
        data: pictures to try another normalisation on: a few training pictures of every task and a few of
            the zero-shot sets.
    """
    if not standings:
        return []
    telling = [standing for standing in standings if standing.can_tell]
    lost = [standing for standing in telling if standing.at_chance]
    everywhere = bool(telling) and len(lost) == len(telling)
    better = None
    if not _ships(loaded) and (loaded.assumed or 2 * len(lost) >= len(telling) > 0):
        better = _better(model, loaded, data)
    if not everywhere:
        if better is None:
            return []
        return [
            f"warning: the normalisation ({used(loaded)}) seems to be wrong: {better.told}",
            *(f"  {line}" for line in better.settings),
        ]
    shown = "; ".join(map(str, lost[:8])) + (f" and {len(lost) - 8} more" if len(lost) > 8 else "")
    every = "" if len(telling) == len(standings) else " with enough pictures to tell"
    return [
        f"warning: the untouched model is at chance on every task and zero-shot set{every}: {shown}",
        f"  used: {used(loaded)}",
        *(f"  {line}" for line in ([OF_EMBEDDED] if _ships(loaded) else _causes(lost, loaded, better))),
    ]


def _ships(loaded: LoadedClip) -> bool:
    """Whether it is the package's own model, whose weights and preprocessing cannot be the wrong ones."""
    return loaded.name == loaded.pretrained == EMBEDDED


def used(loaded: LoadedClip) -> str:
    """Model, weights, size, normalisation and activation in a line."""
    side = loaded.pixels.size
    size = f"{side[0]} px" if side[0] == side[1] else f"{side[0]} × {side[1]} px"
    guess = " (assumed: neither its config nor the scenario says)" if loaded.assumed else ""
    weights = f"weights {loaded.pretrained}" if loaded.pretrained else "random weights"
    normalised = written(loaded.mean, loaded.std)
    return f"model {loaded.name}, {weights}, {size}, {normalised}{guess}, {loaded.activation}"


def _causes(lost: Sequence[Standing], loaded: LoadedClip, better: Better | None) -> Iterator[str]:
    yield "likely causes, the first ones first:"
    if not loaded.pretrained:
        yield "- random weights: give model.pretrained (--pretrained) a tag or a file"
    tried = better.told if better else "none of the usual others surely does better on a few pictures"
    yield f"- normalisation (model.mean, model.std): must be that of the weights' training; {tried}"
    if better:
        yield from (f"  {line}" for line in better.settings)
    yield (
        "- QuickGELU: OpenAI's weights and some others were trained with it and need a model of the name"
        f" …-quickgelu (or quick_gelu: true in its config); this one computes {loaded.activation}"
    )
    yield "- wrong weights: of another architecture, training state or part of a model"
    coded = [one for one in lost if all(map(is_code, one.class_names))]
    codes = "codes, or words that its text tower does not know: names are all that it is told of a class"
    if coded:
        codes = f"codes, as in '{coded[0].name}' ({coded[0].class_names[0]!r} …): call classes by words"
    yield f"- class names that are {codes}"
    yield (
        "if all of that is right, the model does not know these pictures by these names; training may still"
        " teach it"
    )


def _better(model: ClipClassifier, loaded: LoadedClip, data: StreamData) -> Better | None:
    """The usual normalisation that surely gets more of a few pictures right."""
    sets = [(task.train, task.train_space) for task in data.tasks if not task.captioned]
    sets += data.zero_shot.values()
    sets = [(_some(images, TRIED // len(sets) or 1), space) for images, space in sets]
    images = sum(len(part) for part, _ in sets)
    if not images:
        return None
    now = _right(model, sets)
    found = {}
    for name, (mean, std) in USUAL.items():
        apart = zip((*mean, *std), (*loaded.mean, *loaded.std), strict=True)
        if any(abs(one - other) > ALIKE for one, other in apart):
            with _normalised(model, mean, std):
                found[name] = _right(model, sets)
    name = max(found, key=lambda other: found[other])
    share, before = found[name] / images, now / images
    if share - before < WORTH_TELLING or interval(share, images)[0] <= interval(before, images)[1]:
        return None
    told = f"{100 * share:.0f} % of {images} pictures right instead of {100 * before:.0f} %"
    return Better(f"with {written(*USUAL[name])} ({name}) it gets {told}", *USUAL[name])


def _right(model: ClipClassifier, sets: Sequence[tuple[Images, LabelSpace]]) -> int:
    from ..clip.evaluate import predictions

    return sum(int((predictions(model, part.pixels, space) == part.labels).sum()) for part, space in sets)


def _some(images: Images, most: int) -> Images:
    places = list(spread(range(len(images)), most))
    return replace(images, pixels=images.pixels[places], labels=images.labels[places])


@contextmanager
def _normalised(model: ClipClassifier, mean: Triple, std: Triple) -> Iterator[None]:
    before = model.mean, model.std
    model.mean, model.std = (255.0 * before[0].new_tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    try:
        yield
    finally:
        model.mean, model.std = before


def standing_of(name: str, found: Sequence[int], images: Images, space: LabelSpace) -> Standing:
    """How the answers to a set stand to chance.

    Chance is Σ_c (share of answers c) · (share of pictures of c), what Cohen's kappa takes off: one over the
    number of classes where these have equally many pictures, and more where one class has most of them and is
    always answered.

    Args:
        name: of the set.
        found: ``(N,)`` predicted labels.
        images: the set.
        space: its classes.
    """
    from ..clip.evaluate import share_right, share_right_by_chance

    chance = share_right_by_chance(found, images.labels, len(space))
    return Standing(name, share_right(found, images.labels), chance, len(images), space.class_names)


def look(located: Located[Scenario], plans: Plans) -> tuple[ClipClassifier, list[str], list[str]]:
    """Measure the untouched model on a few pictures of every task and zero-shot set.

    Args:
        located: the scenario.
        plans: of it.

    Returns:
        The model, lines about it and what it got right, and warnings.

    Raises:
        UserError: for a model that cannot be loaded.
    """
    import torch

    from ..clip.classifier import ClipClassifier
    from ..clip.evaluate import predictions
    from ..clip.model import load_clip
    from ..data.tasks import load

    loaded = load_clip(located.value.model, located.folder)
    model = ClipClassifier(
        loaded.model,
        loaded.tokenizer,
        mean=loaded.mean,
        std=loaded.std,
        batch_size=located.value.evaluation.batch_size,
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    sets = len(plans.tasks) + len(plans.zero_shot)
    tasks, held_out = ([_few(one, sets) for one in part] for part in (plans.tasks, plans.zero_shot))
    few = Plans(tuple(tasks), tuple(held_out))
    data = load(few, located.value.protocol, loaded.pixels)
    measured = {task.name: (task.test, task.space) for task in data.tasks if not task.captioned}
    measured |= data.zero_shot
    standings = [
        standing_of(name, predictions(model, images.pixels, space), images, space)
        for name, (images, space) in measured.items()
        if len(images)
    ]
    told = [used(loaded), *loaded.notes]
    told += [str(standing) for standing in standings]
    return model, told, cautions(standings, loaded, model, data)


def _few(chosen: Plan, sets: int) -> Plan:
    train = tuple(spread(chosen.train, TRIED // sets or 1))
    test = tuple(spread(chosen.test, max(LEAST, CHECKED // sets)))
    return replace(chosen, train=train, validation=(), test=test)
