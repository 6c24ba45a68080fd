"""The classifier: open_clip's own logits, label spaces, modes and copies."""

from __future__ import annotations

import copy

import open_clip
import pytest
import torch
from torch import nn

from builders.clip_models import (
    SPACE,
    attach,
    batch,
    built,
    tiny_clip,
)
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.evaluate import accuracy, predictions
from cl_complora.clip.slots import open_slots
from cl_complora.clip.text import evaluating
from cl_complora.data.labels import LabelSpace


# Classifier
@pytest.fixture
def classifier(tokenizer) -> ClipClassifier:
    return ClipClassifier(tiny_clip(), tokenizer, SPACE).eval()


def test_logits_are_open_clips_own(classifier):
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    transform = open_clip.image_transform(32, is_train=False).transforms[-1]
    normalised = transform(images.float() / 255)
    torch.testing.assert_close(classifier.normalise(images), normalised, atol=1e-5, rtol=1e-5)
    single = SPACE.with_template(0)
    texts = classifier.text.tokenizer([prompts[0] for prompts in SPACE.prompts])
    expected, _ = classifier.clip.get_logits(normalised, texts)
    torch.testing.assert_close(classifier(images, single), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(classifier(normalised, single), expected, atol=1e-5, rtol=1e-5)


def test_a_logit_bias_is_added(tokenizer):
    model = built("CLIP", init_logit_bias=-3.0)
    plain = built("CLIP")
    images = batch(model)
    expected = ClipClassifier(plain, tokenizer, SPACE)(images) - 3.0
    torch.testing.assert_close(
        ClipClassifier(model, tokenizer, SPACE)(images), expected, atol=1e-5, rtol=1e-5
    )


def test_images_of_several_label_spaces(classifier):
    other = LabelSpace.from_templates(["dog", "house", "tree", "car", "sky"], ["{}"])
    images = batch(classifier.clip).repeat(2, 1, 1, 1)
    ids = torch.tensor([1, 0, 0, 1])
    logits = classifier(images, [SPACE, other], ids)
    assert logits.shape == (4, 5)
    torch.testing.assert_close(logits[0], classifier(images[:1], other)[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits[1, :3], classifier(images[1:2], SPACE)[0], atol=1e-5, rtol=1e-5)
    assert (logits[1:3, 3:] == torch.finfo(torch.float32).min).all() and (logits[1:3].argmax(1) < 3).all()
    with pytest.raises(ValueError, match="space_ids"):
        classifier(images, [SPACE, other])
    classifier.label_space = None
    with pytest.raises(ValueError, match="label space"):
        classifier(images)


def test_evaluation_leaves_modes_and_random_numbers_alone(classifier):
    classifier.train()
    classifier.clip.visual.eval()
    attach(open_slots(classifier.clip), dropout=0.5)
    modes = [m.training for m in classifier.modules()]
    images = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8)
    state = torch.get_rng_state()
    classifier.batch_size = 3
    found = predictions(classifier, images, SPACE)
    assert torch.equal(state, torch.get_rng_state())
    assert [m.training for m in classifier.modules()] == modes
    classifier.batch_size = 256
    assert torch.equal(found, predictions(classifier, images, SPACE))
    assert accuracy(classifier, images, found, SPACE) == 1.0
    assert predictions(classifier, images[:0], SPACE).shape == (0,)


def test_modes_return_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with pytest.raises(RuntimeError), evaluating(model):
        assert not model[0].training
        raise RuntimeError
    assert model.training and model[0].training and not model[1].training


def test_a_copied_classifier_has_its_own_text_head(classifier):
    before = classifier.text.features(SPACE).clone()
    twin = copy.deepcopy(classifier)
    assert twin.text.model is twin.clip
    with torch.no_grad():
        twin.clip.ln_final.weight.mul_(-1.5)
    assert not torch.allclose(twin.text.encode_space(SPACE), before, atol=1e-3)
    torch.testing.assert_close(classifier.text.encode_space(SPACE), before, atol=1e-6, rtol=0)
