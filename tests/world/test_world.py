"""The embedded world: pictures are functions of their numbers, captions fit, the pretraining resumes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.evaluate import accuracy
from cl_complora.clip.model import embedded_tokenizer, load_clip
from cl_complora.config.scenario import Model
from cl_complora.data.labels import LabelSpace
from cl_complora.world import ASSETS
from cl_complora.world.canvas import parse
from cl_complora.world.concepts import CONCEPTS
from cl_complora.world.domains import DOMAINS
from cl_complora.world.general import GENERAL_CLASSES, GENERAL_TEMPLATES, render_general
from cl_complora.world.generator import FONTS_TEST, FONTS_TRAIN, block
from cl_complora.world.making import pretrain
from cl_complora.world.making.batches import Plan
from cl_complora.world.making.vocabulary import build, words
from cl_complora.world.objects import NATURAL, OBJECTS, SHAPES
from cl_complora.world.source import World

NEW = ("objects", "textures", "flags", "aerial", "greek")
"""Families whose subjects no general picture shows."""


def test_there_are_more_than_a_hundred_concepts_and_the_reserved_ones_are_not_among_them():
    assert len(GENERAL_CLASSES) == len(set(GENERAL_CLASSES)) > 100
    assert sum(concept.kind == "glyph" for concept in CONCEPTS) == 36
    novel = {name for domain in DOMAINS.values() if domain.name in NEW for name in domain.class_names}
    assert not {name.split(" ", 1)[-1] for name in novel} & set(GENERAL_CLASSES)
    assert not set(FONTS_TRAIN) & set(FONTS_TEST)
    assert set(NATURAL) <= set(OBJECTS) | set(SHAPES)


@pytest.mark.parametrize("name", sorted(OBJECTS | SHAPES))
def test_every_drawing_parses_and_stays_in_its_frame(name):
    strokes = parse((OBJECTS | SHAPES)[name])
    assert strokes and all(kind in "PL" and 0 <= part <= 4 for kind, part, _, _ in strokes)
    assert all(np.abs(points).max() <= 1.1 for _, _, _, points in strokes)


def test_unknown_primitives_are_refused():
    with pytest.raises(ValueError, match="unknown primitive"):
        parse("X1 0 0 1 1")


def test_a_block_is_a_function_of_its_numbers():
    pixels, captions, concepts = block(3, 5, 40, variants=1)
    again, same, _ = block(3, 5, 40, variants=1)
    other, *_ = block(3, 6, 40, variants=1)
    assert np.array_equal(pixels, again) and captions == same and not np.array_equal(pixels, other)
    assert pixels.shape == (40, 48, 48, 3) and pixels.dtype == np.uint8
    for caption, concept in zip(captions, concepts, strict=True):
        if concept >= 0 and CONCEPTS[concept].kind in ("glyph", "scene"):
            assert CONCEPTS[concept].name in caption


def test_general_pictures_can_be_drawn_in_any_order():
    first = [render_general(c, 0) for c in (0, 90, 100, 110, 130)]
    again = [render_general(c, 0) for c in reversed((0, 90, 100, 110, 130))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(render_general(0, 0), render_general(0, 1))


def test_the_vocabulary_file_is_what_its_script_makes():
    assert build(words()) == (ASSETS / "bpe.txt.gz").read_bytes()


def test_words_are_cut_as_clip_cuts_them(tokenizer):
    ours = embedded_tokenizer()
    for text in GENERAL_CLASSES:
        assert [ours.decoder[t] for t in ours.encode(text)] == [
            tokenizer.decoder[t] for t in tokenizer.encode(text)
        ], text
    for domain in DOMAINS.values():  # every prompt fits the context
        for prompt in domain.prompts:
            assert all(len(ours.encode(prompt.replace("{}", name))) <= 22 for name in domain.class_names), (
                domain.name
            )


def test_the_shipped_model_knows_its_world():
    """The model card's claim on a sample: 4 pictures a class of the general set, seen from the package's own
    files."""
    loaded = load_clip(Model())
    world = World("general")
    items = [item for item in world.items("test") if int(item.key.split("/")[2]) < 4]
    space = LabelSpace.from_templates(GENERAL_CLASSES, GENERAL_TEMPLATES)
    classifier = ClipClassifier(loaded.model, loaded.tokenizer, space, loaded.mean, loaded.std)
    labels = torch.tensor([item.label for item in items])
    found = accuracy(classifier, world.load(items, loaded.pixels), labels, space)
    assert found >= 0.72
    assert (ASSETS / "model.safetensors").stat().st_size <= 8_000_000


def test_pretraining_learns_and_resumes_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "BATCH", 8)
    monkeypatch.setattr(pretrain, "batches", _in_process)
    monkeypatch.setattr(pretrain, "evaluate", lambda *_: {"all": 0.0})

    def train(folder, stops):
        for stop in stops:
            state = pretrain.new_state(0, 1e-3, "cpu")
            if (folder / "checkpoint.pt").exists():
                pretrain.restore(state, folder)
            pretrain.train(state, Plan(0, 32), 1e-3, folder, every=1e9, stop=stop)
        return state

    whole, cut = train(tmp_path / "whole", [32]), train(tmp_path / "cut", [16, 32])
    assert whole.images == cut.images == 32
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, cut.model.state_dict()[name]), name
    assert (
        len([json.loads(line) for line in (tmp_path / "cut" / "curve.jsonl").read_text().splitlines()]) == 2
    )


def _in_process(plan, first):
    for image in range(first, plan.images, pretrain.BATCH):
        pixels, captions, labels = block(plan.seed, image // pretrain.BATCH, pretrain.BATCH, variants=1)
        yield torch.from_numpy(pixels).permute(0, 3, 1, 2), captions, torch.tensor(labels)
