"""CLIP's loss on the pairs of a batch: drawn texts, equal ones, mixed batches."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cl_complora.engine.training.caption_pairs import drawn_captions, loss_with_captions
from cl_complora.engine.training.training_loss import Answered

TEXTS = [("a", "b"), ("c",), ("a", "a"), ("d", "e", "f")]


def test_one_text_of_every_picture_is_drawn_and_equal_ones_share_a_place():
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(40):
        space, places = drawn_captions(TEXTS, generator)
        texts = [space.class_names[place] for place in places]
        assert all(text in own for text, own in zip(texts, TEXTS, strict=True))
        assert len(set(space.class_names)) == len(space.class_names) == len(set(texts))
        assert (places[0] == places[2]) == (texts[0] == texts[2])
        seen |= set(texts)
    assert seen == set("abcdef")


def batch(logits, labels, of=None, smoothing=0.0) -> Answered:
    labels = torch.tensor(labels)
    of = torch.zeros_like(labels) if of is None else torch.tensor(of)
    return Answered(logits, labels, of, [torch.ones(3), torch.ones(3)], torch.tensor(1.0), smoothing)


def test_different_texts_give_clips_own_loss():
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = loss_with_captions(batch(logits, [0, 1, 2, 3]), [True], None)
    right = torch.arange(4)
    assert float(found) == pytest.approx(
        float(F.cross_entropy(logits, right) + F.cross_entropy(logits.mT, right)) / 2
    )


def test_pictures_with_the_same_text_are_no_negatives_of_each_other():
    # Two pictures of one text and one of another; the first two are found as surely as can be.
    logits = torch.tensor([[50.0, 0.0], [50.0, 0.0], [0.0, 50.0]], dtype=torch.float64)
    found = loss_with_captions(batch(logits, [0, 0, 1]), [True], None)
    # Each of the pair has half of the target, and that is the best there is: the entropy of a coin.
    assert float(found) == pytest.approx(2 / 3 * torch.tensor(2.0).log().item())
    logits.requires_grad_()
    loss_with_captions(batch(logits, [0, 0, 1]), [True], None).backward()
    assert float(logits.grad.abs().max()) < 1e-12  # nothing pushes them apart


def test_a_mixed_batch_is_the_mean_over_its_images_of_two_losses():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    of, labels = [0, 1, 1, 0, 1], [2, 0, 1, 1, 0]
    given = batch(logits, labels, of)
    found = loss_with_captions(given, [False, True], lambda b: F.cross_entropy(b.logits, b.labels))
    pairs = [1, 2, 4]
    alone = batch(logits[pairs][:, :2], [0, 1, 0])
    expected = 2 * F.cross_entropy(logits[[0, 3]], torch.tensor([2, 1])) / 5
    expected += 3 * loss_with_captions(alone, [True], None) / 5
    assert float(found) == pytest.approx(float(expected))


def test_smoothing_spreads_over_the_pairs():
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    right = torch.arange(3)
    found = loss_with_captions(batch(logits, [0, 1, 2], smoothing=0.1), [True], None)
    both = [F.cross_entropy(z, right, label_smoothing=0.1) for z in (logits, logits.mT)]
    assert float(found) == pytest.approx(float(sum(both)) / 2)
