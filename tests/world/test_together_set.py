"""The world's pictures of several objects: fixed, labelled, and told apart by the shipped model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.label_scores import compound_tokens, precisions
from cl_complora.clip.model import load_clip
from cl_complora.config import load_scenario
from cl_complora.config.scenario import Model
from cl_complora.data.planning import plan
from cl_complora.world import captioned_set, general, together_set
from cl_complora.world.together_set import CLASSES, IMAGES, render_together, shown_in

SOME = range(0, IMAGES, 37)


def test_a_picture_is_fixed_and_can_be_drawn_alone():
    before = {number: render_together(number) for number in SOME}
    render_together.cache_clear()
    for number in reversed(SOME):
        image = render_together(number)
        assert np.array_equal(image, before[number])
        assert image.shape == (48, 48, 3) and image.dtype == np.uint8
    assert together_set._SEED not in (captioned_set._SEED, general._SEED) and together_set._SEED > 1_000_000


def test_every_picture_shows_two_or_three_classes_and_every_class_is_shown():
    shown = [shown_in(number) for number in range(IMAGES)]
    assert {len(own) for own in shown} == {2, 3}
    assert all(len(set(own)) == len(own) and list(own) == sorted(own) for own in shown)
    assert {label for own in shown for label in own} == set(range(len(CLASSES)))


def test_the_shipped_scenario_reaches_what_its_model_can():
    (chosen,) = plan(load_scenario("embedded-together", ["multi_label.0.images=90"]), 0).multi_label
    assert chosen.counted == len(CLASSES) and chosen.compound.most == len(CLASSES) - 1
    loaded = load_clip(Model(), Path("."))
    model = ClipClassifier(loaded.model, loaded.tokenizer, mean=loaded.mean, std=loaded.std)
    pixels = chosen.source.load(chosen.test, loaded.pixels)
    plain, by_set, sparc = precisions(model, pixels, chosen, compound_tokens(model, chosen))
    chance = sum(map(len, chosen.labels)) / len(chosen.labels) / len(CLASSES)
    assert plain > 2 * chance and by_set > plain + 0.1 and sparc > plain
