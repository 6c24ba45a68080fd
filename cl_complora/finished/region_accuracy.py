"""Does a model know what it sees where? Accuracy of dense features and of crops, beside the class token's.

Four features of every test picture are compared with the texts of its set:

    class token   what the model is asked for everywhere else
    dense         the mean of the dense map (clip/dense.py) over the whole picture
    box           the mean of the dense map over the central box
    crop          the class token of that box, cut out and enlarged

Nothing is trained or merged for good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..analysis.representation import spread
from ..clip.classifier import ClipClassifier
from ..clip.dense import box_weights, crops, dense_fault, dense_map, pooled
from ..clip.evaluate import share_right
from ..clip.text import evaluating
from ..data.labels import LabelSpace
from ..data.tasks import Images
from ..errors import UserError
from ..files import write_json
from .evaluation import MeasuredSet, sets_of
from .states import State, every_state, finished_tasks

FILE = "regions.json"
# Three quarters of each side: what is photographed fills most of a picture.
BOX = (0.125, 0.125, 0.875, 0.875)


@dataclass(frozen=True)
class RegionAccuracy:
    """Fractions of a set's pictures that each feature gets right, by the texts alone."""

    class_token: float
    dense: float
    box: float
    crop: float


def regions(
    untouched: State, most: int = 500, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Measure every state of a run on its tasks of classes and its zero-shot sets; also kept as
    ``regions.json``.

    Heads have no part in it: they answer to class tokens alone.

    Args:
        untouched: the run's state before its first task (``open_run(path, after="0")``).
        most: pictures of a set at most, evenly spread.
        tell: told what is being done.

    Raises:
        UserError: for a model without a dense map, and for other pictures than the run was made with.
    """
    folder, results = untouched.folder, untouched.results
    fault = dense_fault(untouched.loaded.model.visual)
    if fault is not None:
        raise UserError(f"{folder.root}: dense features of '{untouched.loaded.name}' are not known: {fault}")
    sets = {one.name: _some(one, most) for one in sets_of(untouched)}
    classifier = untouched.classifier()
    count = len(finished_tasks(folder, results)) + 1
    tell(f"asking {count} states about {sum(len(images) for images, _ in sets.values())} pictures")
    states = [
        _state(state.after[-1] if state.after else "untouched model", classifier, sets)
        for state in every_state(untouched)
    ]
    content = {
        "box": list(BOX),
        "images": {name: len(images) for name, (images, _) in sets.items()},
        "states": states,
        "created_with": {"images": most, "software": results["software"]},
    }
    write_json(folder.root / FILE, content)
    return content


def _some(one: MeasuredSet, most: int) -> tuple[Images, LabelSpace]:
    chosen = spread(len(one.images), most)
    return Images(one.images.pixels[chosen], one.images.labels[chosen]), one.space


def _state(
    name: str, classifier: ClipClassifier, sets: Mapping[str, tuple[Images, LabelSpace]]
) -> dict[str, Any]:
    found = {key: asdict(region_accuracy(classifier, *one)) for key, one in sets.items()}
    return {"after": name, "sets": found}


@torch.no_grad()
def region_accuracy(classifier: ClipClassifier, images: Images, space: LabelSpace) -> RegionAccuracy:
    """The four accuracies on a set of pictures."""
    device = next(classifier.parameters()).device
    parts = []
    with evaluating(classifier):
        texts = classifier.text.features(space)
        for batch in images.pixels.split(classifier.batch_size):
            answers = [(each @ texts.mT).argmax(1).cpu() for each in _features(classifier, batch.to(device))]
            parts.append(torch.stack(answers))
    answered = torch.cat(parts, dim=1)
    return RegionAccuracy(*(share_right(found, images.labels) for found in answered))


def _features(classifier: ClipClassifier, pixels: Tensor) -> tuple[Tensor, ...]:
    """Unit features of pictures in the order of :class:`RegionAccuracy`."""
    shown = classifier.normalise(pixels)
    dense = dense_map(classifier.clip.visual, shown)
    weights = box_weights(torch.tensor([(0.0, 0.0, 1.0, 1.0), BOX]), dense.shape[-2:]).to(dense)
    whole, box = F.normalize(pooled(dense, weights), dim=-1).unbind(1)
    return classifier.image_features(shown), whole, box, classifier.image_features(crops(shown, [BOX]))
