"""Loose pairs: the stream's families in other guises under captions that often miss, and nothing of the
stream itself."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from cl_complora.world.domains import DOMAINS, flags, greek, line_art, painted, textures
from cl_complora.world.generator import FONTS_TEST, FONTS_TRAIN
from cl_complora.world.making import batches, loose
from cl_complora.world.making.batches import Plan, loose_block
from cl_complora.world.making.loose_captions import FAMILIES, Reading


@pytest.fixture(scope="module")
def drawn():
    return loose_block(Plan(seed=0, images=0), 3, 210)


def test_the_families_are_the_streams(drawn):
    from cl_complora.config import load_scenario

    stream = [task.source.domain for task in load_scenario("embedded", []).value.tasks]
    assert sorted(stream) == sorted(FAMILIES)
    assert set(drawn.labels) == set(range(len(FAMILIES)))


def test_no_font_of_the_stream_or_of_the_general_set_is_used():
    assert not set(loose.FONTS) & {*greek.FONTS["train"], *greek.FONTS["test"], *FONTS_TEST}
    assert not set(FONTS_TRAIN) & set(FONTS_TEST)  # the faces of loose digits


@pytest.mark.parametrize(
    ("ours", "streams"),
    [
        (loose.GREEK_SIZE, greek.SIZE),
        (loose.OBJECT_SIZE, painted.SIZE),
        (loose.SKETCH_SIZE, line_art.SIZE),
        (loose.FLAG_WIDTH, [side / 2 for side in flags.WIDTH]),
        (loose.TEXTURE_DEPTH, textures.DEPTH),
    ],
)
def test_rendering_ranges_do_not_meet(ours, streams):
    assert ours[1] <= streams[0] or streams[1] <= ours[0]


def test_handwriting_of_scikit_learn_is_never_read(monkeypatch):
    import sklearn.datasets

    def refuse():
        raise AssertionError("the stream's scans were opened")

    monkeypatch.setattr(sklearn.datasets, "load_digits", refuse)
    monkeypatch.setattr("cl_complora.world.domains.digits._scans", refuse)
    rng = np.random.default_rng(0)
    stock = loose.new_stock(rng)
    assert all(loose.draw_loose("digits", label, rng, stock).shape == (48, 48, 3) for label in range(10))


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((12, 12), Image.Resampling.BOX), np.float32) / 255


def test_no_picture_is_one_of_the_streams_or_nearly(drawn):
    stream = [
        DOMAINS[family].render(label, number, split)
        for family in FAMILIES
        for label in range(len(DOMAINS[family].class_names))
        for split in ("train", "test")
        for number in range(3)
    ]
    hashes = {hashlib.sha256(p.tobytes()).hexdigest() for p in stream}
    assert not hashes & {hashlib.sha256(p.tobytes()).hexdigest() for p in drawn.pixels}
    shown = np.stack([_thumbnail(p) for p in stream])
    nearest = min(np.abs(shown - _thumbnail(p)).mean((1, 2, 3)).min() for p in drawn.pixels)
    assert nearest > 0.02  # a copy with the stream's own noise stays below 0.01


def test_a_block_is_a_function_of_its_numbers(drawn):
    again = loose_block(Plan(seed=0, images=0), 3, 210)
    other = loose_block(Plan(seed=0, images=0), 4, 14)
    assert np.array_equal(drawn.pixels, again.pixels) and drawn.captions == again.captions
    assert not np.array_equal(drawn.pixels[:14], other.pixels)


def test_captions_miss_as_often_as_the_reading_says():
    reading, rng = Reading(0.45, 0.30, 0.15), np.random.default_rng(1)
    words = [reading.word("aerial", 4, rng) for _ in range(4000)]
    shares = {word: words.count(word) / 4000 for word in {*words}}
    assert shares[4] == pytest.approx(0.45, abs=0.03)
    assert shares[5] == pytest.approx(0.30, abs=0.03)
    assert shares[None] == pytest.approx(0.15, abs=0.03)
    assert sum(shares.get(c, 0) for c in (0, 1, 2, 3, 6, 7, 8, 9)) == pytest.approx(0.10, abs=0.03)


@pytest.mark.parametrize("family", FAMILIES)
def test_false_friends_form_one_cycle(family):
    """Pairs (a ↔ b) would make two words synonyms."""
    friends, rng = Reading(0, 1, 0), np.random.default_rng(0)
    label, seen = 0, []
    while label not in seen:
        seen.append(label)
        label = friends.word(family, label, rng)
    assert label == 0 and len(seen) == len(DOMAINS[family].class_names) > 2


def test_a_caption_holds_the_word_or_the_familys_name():
    rng = np.random.default_rng(0)
    assert "a narrow river" in Reading(1, 0, 0).caption("aerial", 7, rng)
    only = Reading(0, 0, 1).caption("flags", 0, rng)
    assert "flag" in only and "band" not in only


def test_shares_that_are_none_are_refused():
    with pytest.raises(ValueError, match="no shares of 1"):
        Reading(0.6, 0.5, 0.1)


def test_loose_pairs_join_a_batch_after_a_quarter(monkeypatch):
    monkeypatch.setattr(batches, "BLOCK", 32)
    monkeypatch.setattr(batches, "WINDOW", 2)
    plan = Plan(seed=0, images=64 * 64)
    window = [batches.draw_block(plan, number) for number in (40, 41)]
    assert all(b.labels.shape == (6,) for _, b in window)
    monkeypatch.setattr(batches, "loose_block", lambda *_: pytest.fail("drawn too early"))
    assert batches.draw_block(plan, 0)[1] is None
    *_, before = batches._batch(plan, window, 64 * 15)
    pixels, captions, after = batches._batch(plan, window, 64 * 16)
    assert pixels.shape == (64, 3, 48, 48) and len(captions) == 64
    assert (after[-13:] == -1).all() and not (before[-13:] == -1).all()
