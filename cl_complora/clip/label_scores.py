"""How well a model's scores find the images that show a class, where images show several; draws no random
number and leaves the model as it was."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..data.captions.multi_label_sets import MultiLabelPlan
from ..data.labels import LabelSpace
from ..metrics import mean_average_precision
from .classifier import ClipClassifier
from .evaluate import image_features
from .retrieval import text_features
from .sparc import normalised, sparc_scores


class LabelScores(NamedTuple):
    """Scores of N images for K classes; ``N × K`` each.

    Attributes:
        cosines: of images and classes' texts.
        normalised: those by image and by class; transductive.
        sparc: with compound prompts beside them; transductive. None without such prompts.
    """

    cosines: Tensor
    normalised: Tensor
    sparc: Tensor | None


@torch.no_grad()
def label_scores(
    classifier: ClipClassifier,
    pixels: Tensor,
    plan: MultiLabelPlan,
    tokens: Tensor | None,
    features: Tensor | None = None,
) -> LabelScores:
    """Score a multi-label set by the two towers.

    Args:
        classifier: the model.
        pixels: ``N × 3 × H × W`` uint8.
        plan: of the set.
        tokens: of its compound prompts; None where it has none.
        features: the images' unit features, where they are known.
    """
    images = image_features(classifier, pixels) if features is None else features
    space = LabelSpace.from_templates(plan.class_names, plan.prompts)
    single = images @ classifier.text.features(space).float().mT
    if tokens is None:
        return LabelScores(single, normalised(single), None)
    plain = images @ classifier.text.features(LabelSpace.from_templates(plan.class_names, ["{}"])).float().mT
    compound = images @ text_features(classifier, tokens).mT
    scores = sparc_scores(single, plain, compound, plan.compound.of)
    return LabelScores(single, normalised(single), scores)


def precisions(
    classifier: ClipClassifier,
    pixels: Tensor,
    plan: MultiLabelPlan,
    tokens: Tensor | None,
    features: Tensor | None = None,
) -> tuple[float, float, float]:
    """mAP of each of :class:`LabelScores`; NaN of what there is not. Arguments as of :func:`label_scores`."""
    positive = torch.tensor(plan.positive)
    plain, by_set, sparc = (
        float("nan") if scores is None else mean_average_precision(scores.cpu(), positive)
        for scores in label_scores(classifier, pixels, plan, tokens, features)
    )
    return plain, by_set, sparc


def compound_tokens(classifier: ClipClassifier, plan: MultiLabelPlan) -> Tensor | None:
    """Tokens of a set's compound prompts; None where it has none."""
    texts = list(plan.compound.texts)
    return classifier.text.tokenizer(texts) if texts else None
