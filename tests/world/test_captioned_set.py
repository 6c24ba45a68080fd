"""The world's captions set: fixed, apart from what was pretrained on, and told apart by the shipped model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.evaluate import image_features
from cl_complora.clip.model import embedded_tokenizer, load_clip
from cl_complora.clip.retrieval import ranks, text_features
from cl_complora.config import load_scenario
from cl_complora.config.scenario import Model
from cl_complora.data.planning import plan
from cl_complora.metrics import recall_at
from cl_complora.world import captioned_set, general
from cl_complora.world.captioned_set import IMAGES, WorldCaptions, render_captioned
from cl_complora.world.generator import Stock, block, single, whole

SOME = range(0, IMAGES, 41)


def test_a_picture_and_its_captions_are_fixed_and_can_be_drawn_alone():
    before = {number: render_captioned(number) for number in SOME}
    render_captioned.cache_clear()
    for number in reversed(SOME):
        image, texts = render_captioned(number)
        assert np.array_equal(image, before[number][0]) and texts == before[number][1]
        assert image.shape == (48, 48, 3) and image.dtype == np.uint8
        assert len(set(texts)) == len(texts) >= 3


def test_no_caption_is_cut():
    texts = [text for number in SOME for text in render_captioned(number)[1]]
    short, long = (embedded_tokenizer()(texts, context_length=length) for length in (24, 60))
    assert (long[:, 24:] == 0).all() and (short == long[:, :24]).all()


def test_its_seed_is_that_of_no_other_pictures():
    assert captioned_set._SEED != general._SEED and captioned_set._SEED > 1_000_000
    drawn, _, _ = block(0, 0, 8, variants=1)
    own = [render_captioned(number)[0] for number in SOME]
    others = [*drawn, *(general.render_general(number % 154, number) for number in SOME)]
    assert not any(np.array_equal(one, other) for one in own for other in others)


def test_what_a_picture_writes_again_is_of_the_same_picture():
    rng = np.random.default_rng(0)
    stock = Stock.drawn(rng, 1, keys=("apple",))
    assert "apple" in (picture := single(rng, stock, "apple", 1.0)).caption
    assert all("apple" in picture.write(rng) for _ in range(9))
    assert "wavy pattern" in whole(rng, stock, "waves").write(rng)


def test_the_shipped_scenario_reaches_what_its_model_can():
    (chosen,) = plan(load_scenario("embedded-captions", ["retrieval.0.images=60"]), 0).retrieval
    loaded = load_clip(Model(), Path("."))
    model = ClipClassifier(loaded.model, loaded.tokenizer, mean=loaded.mean, std=loaded.std)
    images = image_features(model, chosen.source.load(chosen.test, loaded.pixels))
    texts = text_features(model, loaded.tokenizer(list(chosen.captions)))
    found = [recall_at(one, 1) for one in ranks(images, texts, chosen.owners)]
    assert min(found) > 0.7 and min(found) < 1


def test_what_is_trained_on_and_what_is_tested_are_other_pictures():
    source = WorldCaptions()
    train, test = ({item.key for item in source.items(split)} for split in ("train", "test"))
    assert len(train) == len(test) == IMAGES and not train & test and source.items("validation") == []
